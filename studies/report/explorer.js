// The seed model in the browser: order parameters, errors, and the page's explorer.
//
// The first half (the theory) needs nothing but Math, and is held against odeflow.integrate by the tests, through node.
// The second half (the page) makes the controls and draws the curves. Equations as on the theory page of the docs.
"use strict";

const Explorer = (() => {
  // --- special functions ---

  // (1 + 2x) exp(x^2) erfc(x) for x >= 0 as a Chebyshev series in t = (x - 4) / (x + 4): the function is smooth on all
  // of [-1, 1], infinity included. Coefficients from 40-digit arithmetic; what is left out is below 1e-17.
  const ERFCX = [
    1.1774832005374487, -0.007260796620301901, -0.081265123236185, 0.06009212804122225,
    -0.02875393558027666, 0.01059566336347286, -0.003136927294554264, 0.0007456494372536184,
    -0.0001369696503010054, 1.7183861600300937e-5, -7.158364623450346e-7, -2.4261399442449534e-7,
    5.5765709395703566e-8, -2.1057869513809494e-9, -1.1717889351884957e-9, 1.9098355172456688e-10,
    1.408871764208813e-11, -6.901108320480815e-12, 9.167958364111294e-14, 2.1454508286554553e-13,
    -1.4716575027010623e-14, -6.668675118770408e-15, 7.504598509880083e-16, 2.22009300666632e-16,
    -3.1704898956330886e-17, -8.193570309884333e-18,
  ];

  /** Complementary error function, to a few units of rounding (times x^2 in the far tail, as exp(-x^2) has it). */
  function erfc(x) {
    const size = Math.abs(x);
    if (size > 27) return x > 0 ? 0 : 2;
    const t = (size - 4) / (size + 4);
    let next = 0;
    let last = 0;
    for (let k = ERFCX.length - 1; k > 0; k--) [next, last] = [2 * t * next - last + ERFCX[k], next];
    const upper = (Math.exp(-size * size) * (t * next - last + ERFCX[0])) / (1 + 2 * size);
    return x >= 0 ? upper : 2 - upper;
  }

  const erf = (x) => 1 - erfc(x);

  /** Distribution function of the standard normal law. */
  const Phi = (x) => erfc(-x / Math.SQRT2) / 2;

  /** Nodes and weights of Gauss-Legendre quadrature on [-1, 1]: Newton's method on the Legendre polynomial. */
  function gaussLegendre(count) {
    const points = [];
    for (let i = 0; i < count; i++) {
      let x = Math.cos((Math.PI * (i + 0.75)) / (count + 0.5));
      let slope = 1;
      for (let round = 0; round < 20; round++) {
        let [before, value] = [1, x];
        for (let n = 2; n <= count; n++) [before, value] = [value, ((2 * n - 1) * x * value - (n - 1) * before) / n];
        slope = (count * (x * value - before)) / (x * x - 1);
        x -= value / slope;
      }
      points.push({ x, weight: 2 / ((1 - x * x) * slope * slope) });
    }
    return points;
  }

  // --- Gaussian averages of one class (theory, 1.2) ---

  const POINTS = gaussLegendre(12);

  /**
   * The averages that the dynamics need of a class of variance v, as functions of u = tau m:
   * first(u) = tau <delta> and second(u) = <delta^2>.
   */
  function averages(v) {
    const [one, two, three] = [1 + 2 * v, 1 + 4 * v, 1 + 6 * v];
    const A = 2 / Math.sqrt(Math.PI * one);
    const C = 4 / Math.PI / Math.sqrt(two);
    // Owen's T function at unit argument turns 1 - 2 tau e1 + e2 into erfc(g)^2 + (4/pi) * an integral from a to 1.
    const a = Math.sqrt(two / (1 + 8 * v));
    const rule = POINTS.map(({ x, weight }) => {
      const square = 1 + ((1 + a) / 2 + ((1 - a) / 2) * x) ** 2;
      return { square, weight: ((4 / Math.PI) * ((1 - a) / 2) * weight) / square };
    });
    return {
      first: (u) => A * Math.exp((-u * u) / one) * erfc(u / Math.sqrt(one * two)),
      second: (u) => {
        const g = u / Math.sqrt(two * three);
        let sum = erfc(g) ** 2;
        for (const { square, weight } of rule) sum += weight * Math.exp(-g * g * square);
        return C * Math.exp((-2 * u * u) / two) * sum;
      },
    };
  }

  // --- dynamics (theory, 1.1) ---

  const DEFAULTS = {
    p: 0.5, rho: 2, v1: 1, v2: 1, epsilon: 0, eta_w: 0.04, eta_b: 0.2, second_order: true, R0: 0, b0: 0,
  };

  /** The right-hand side (R, b) -> [dR/dalpha, db/dalpha] of a model. */
  function rates(model) {
    const { p, rho, v1, v2, epsilon, eta_w, eta_b, second_order } = { ...DEFAULTS, ...model };
    const [plus, minus] = [averages(v1), averages(v2)];
    const noise = second_order ? eta_w ** 2 / 2 : 0;
    return (R, b) => {
      const margin = (rho * R) / 2 - epsilon;
      const [first_plus, first_minus] = [p * plus.first(margin - b), (1 - p) * minus.first(margin + b)];
      const squares = noise && p * v1 * plus.second(margin - b) + (1 - p) * v2 * minus.second(margin + b);
      const dR = ((eta_w * rho) / 2) * (1 - R * R) * (first_plus + first_minus) - noise * R * squares;
      return [dR, -eta_b * (first_plus - first_minus)];
    };
  }

  // Dormand and Prince's method of order 5(4) with its continuous extension of order 4
  // (Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.5 and II.6).
  const STAGES = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
  ];
  const DIFFERENCE = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40];
  const DENSE = [
    -12715105075 / 11282082432, 0, 87487479700 / 32700410799, -10690763975 / 1880347072,
    701980252875 / 199316789632, -1453857185 / 822651844, 69997945 / 29380423,
  ];

  const combined = (weights, k, i) => weights.reduce((sum, weight, s) => sum + weight * k[s][i], 0);

  /**
   * R and b at increasing times alpha >= 0. Failure is no exception, but `reached` < the last alpha, and NaN from there.
   */
  function integrate(model, alpha, { rtol = 1e-9, atol = 1e-11, maxSteps = 20000 } = {}) {
    const { R0, b0 } = { ...DEFAULTS, ...model };
    const rate = rates(model);
    const end = alpha[alpha.length - 1];
    const result = { alpha, R: alpha.map(() => NaN), b: alpha.map(() => NaN), reached: 0, steps: 0 };
    let [t, y, output] = [0, [R0, b0], 0];
    const k = [rate(...y)];
    const record = (at, values) => ([result.R[at], result.b[at]] = values);
    while (output < alpha.length && alpha[output] <= 0) record(output++, y);
    let h = Math.min(end, 0.01 / (Math.abs(k[0][0]) + Math.abs(k[0][1]) + 1e-3));
    let rejected = false;
    while (output < alpha.length && result.steps < maxSteps) {
      result.steps++;
      h = Math.min(h, end - t);
      if (!(t + h > t)) break;
      let next = y;
      for (let s = 0; s < 6; s++) {
        next = [0, 1].map((i) => y[i] + h * combined(STAGES[s], k, i));
        k[s + 1] = rate(...next);
      }
      const error = Math.hypot(
        ...[0, 1].map((i) => {
          const scale = atol + rtol * Math.max(Math.abs(y[i]), Math.abs(next[i]));
          return (h * combined(DIFFERENCE, k, i)) / scale / Math.SQRT2;
        }),
      );
      const factor = Math.min(rejected ? 1 : 5, Math.max(0.2, 0.9 * error ** -0.2));
      rejected = !(error <= 1);
      if (rejected) {
        h *= Number.isFinite(factor) ? factor : 0.1;
        continue;
      }
      const after = end - t <= h ? end : t + h;
      for (; output < alpha.length && alpha[output] <= after; output++) {
        const theta = (alpha[output] - t) / h;
        const interpolated = [0, 1].map((i) => {
          const step = next[i] - y[i];
          const bend = h * k[0][i] - step;
          const twist = step - h * k[6][i] - bend;
          const rest = h * combined(DENSE, k, i);
          return y[i] + theta * (step + (1 - theta) * (bend + theta * (twist + (1 - theta) * rest)));
        });
        record(output, theta >= 1 ? next : interpolated);
      }
      [t, y, k[0]] = [after, next, k[6]];
      h *= factor;
    }
    result.reached = t;
    return result;
  }

  // --- errors (theory, 1.3) ---

  /** Adversarial error of the classifier (R, b) at the test perturbation epsilon; at 0, the classification error. */
  function adversarialError(R, b, model, epsilon) {
    const { p, rho, v1, v2 } = { ...DEFAULTS, ...model };
    const margin = (rho * Math.max(-1, Math.min(1, R))) / 2 - epsilon;
    return p * Phi(-(margin - b) / Math.sqrt(v1)) + (1 - p) * Phi(-(margin + b) / Math.sqrt(v2));
  }

  /** Everything that is drawn of a model: curves over alpha, and the robustness curve at the end. */
  function curves(model, { end = 100, testEpsilon = 1, points = 240, options = {} } = {}) {
    const alpha = Array.from({ length: points + 1 }, (_, i) => end * (i / points) ** 2); // finer where it is steep
    const { R, b, reached, steps } = integrate(model, alpha, options);
    const widest = model.rho || 1;
    const epsilon = Array.from({ length: 101 }, (_, i) => (widest * i) / 100);
    const error = (epsilon) => R.map((_, i) => adversarialError(R[i], b[i], model, epsilon));
    const robustness = epsilon.map((one) => adversarialError(R[R.length - 1], b[b.length - 1], model, one));
    return { alpha, R, b, E: error(0), S: error(testEpsilon), epsilon, robustness, reached, steps };
  }

  const theory = { DEFAULTS, adversarialError, averages, curves, erf, erfc, integrate, Phi, rates };
  if (typeof document === "undefined") return theory;

  // --- the page: controls ---

  const CONTROLS = [
    { key: "p", text: "p", name: "prior of class +1", from: 0.01, to: 0.99, step: 0.01, value: 0.7, above: 0, below: 1 },
    { key: "rho", text: "ρ", name: "separation of the classes", from: 0, to: 6, step: 0.05, value: 2, least: 0 },
    { key: "v1", text: "v₁", name: "variance of class +1", from: 0.05, to: 10, log: true, value: 1, above: 0 },
    { key: "v2", text: "v₂", name: "variance of class −1", from: 0.05, to: 10, log: true, value: 1, above: 0 },
    { key: "epsilon", text: "ε", name: "training perturbation", from: 0, to: 4, step: 0.02, value: 1, least: 0 },
    { key: "eta_w", text: "η_w", name: "learning rate, weights", from: 0.001, to: 5, log: true, value: 0.04, above: 0 },
    { key: "eta_b", text: "η_b", name: "learning rate, bias", from: 0.001, to: 5, log: true, value: 0.2, above: 0 },
    { key: "test", text: "ε_test", name: "perturbation in S(α)", from: 0, to: 4, step: 0.02, value: 1, least: 0 },
    { key: "R0", text: "R(0)", name: "initial overlap", from: -1, to: 1, step: 0.01, value: 0, least: -1, most: 1, rare: true },
    { key: "b0", text: "b(0)", name: "initial bias", from: -3, to: 3, step: 0.01, value: 0, rare: true },
    { key: "end", text: "α_end", name: "examples per dimension", from: 1, to: 10000, log: true, value: 100, above: 0, most: 1e6, rare: true },
  ];
  const PRESETS = [
    { name: "Scenario 1", values: { p: 0.5 } },
    { name: "Scenario 2", values: {} },
    { name: "Unequal variances", values: { p: 0.5, v1: 0.5, v2: 2, epsilon: 0.6 } },
    { name: "Large learning rate", values: { eta_w: 2, epsilon: 0.5 } },
  ];

  const SVG = "http://www.w3.org/2000/svg";

  function element(tag, attributes = {}, ...children) {
    const node = attributes.svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (name !== "svg") node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const drawn = (tag, attributes, ...children) => element(tag, { svg: true, ...attributes }, ...children);

  /** A text with its subscripts: "η_w" as η with w below. */
  function subscripted(text) {
    return text.split(/_(\w+)/).map((part, i) => (i % 2 ? element("sub", {}, part) : part));
  }

  /** Three or four digits, without trailing zeros. */
  const short = (value, digits = 4) => String(Number(value.toPrecision(digits)));

  function allowed({ above, below, least, most }) {
    const bounds = [[above, ">"], [least, "≥"], [below, "<"], [most, "≤"]].filter(([bound]) => bound !== undefined);
    return `allowed: ${bounds.map(([bound, sign]) => `${sign} ${bound}`).join(" and ") || "any number"}`;
  }

  function isAllowed({ above = -Infinity, below = Infinity, least = -Infinity, most = Infinity }, value) {
    return Number.isFinite(value) && value > above && value < below && value >= least && value <= most;
  }

  /** A slider with a number field. The slider has the sensible range, the field whatever the theory allows. */
  function makeControl(control, changed) {
    const { key, text, name, from, to, step, log } = control;
    const onSlider = (value) => (log ? Math.log(value) : value);
    const ofSlider = (position) => (log ? Number(Math.exp(position).toPrecision(3)) : Number(position));
    const slider = element("input", {
      type: "range", id: `explorer-${key}`, min: onSlider(from), max: onSlider(to),
      step: log ? "any" : step, "aria-label": `${name}, slider`,
    });
    const field = element("input", { type: "number", id: `explorer-${key}-number`, step: "any", inputmode: "decimal" });
    const label = element("label", { for: field.id }, element("b", {}, ...subscripted(text)), ` ${name}`);
    const problem = element("span", { class: "problem", role: "alert" });
    const state = { ...control, node: element("div", { class: "control" }, label, field, slider, problem) };
    const accept = (value) => {
      state.current = value;
      state.valid = isAllowed(control, value);
      problem.textContent = state.valid ? "" : allowed(control);
      field.setAttribute("aria-invalid", String(!state.valid));
    };
    state.set = (value) => {
      accept(value);
      field.value = value;
      slider.value = onSlider(Math.max(value, log ? from : -Infinity));
    };
    slider.addEventListener("input", () => {
      accept(ofSlider(slider.value));
      field.value = state.current;
      changed();
    });
    field.addEventListener("input", () => {
      accept(field.value === "" ? NaN : Number(field.value));
      if (state.valid) slider.value = onSlider(state.current);
      changed();
    });
    state.set(control.value);
    return state;
  }

  // --- the page: plots ---

  const [WIDTH, HEIGHT] = [340, 202];
  const BOX = { left: 44, right: WIDTH - 10, top: 8, bottom: HEIGHT - 32 };

  /** Round numbers that cover [low, high] in about `count` steps. */
  function ticks(low, high, count = 5) {
    const raw = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
    const values = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
    return { values, step };
  }

  /** The text of a tick. */
  const tickText = (value) => (Math.abs(value) < 1e5 ? short(value, 6) : value.toExponential().replace("+", ""));

  /** The range of a plot's vertical axis: what is always shown, widened by what the lines need (not for rounding). */
  function extent(lines, [least, most]) {
    const values = [least, most, ...lines.flatMap(({ y }) => y.filter(Number.isFinite))];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return [low < least - 1e-6 ? low : least, high > most + 1e-6 ? high : most];
  }

  /** A plot that is drawn anew on every change, and reads out the values under the pointer. */
  function makePlot({ title, xText, always }) {
    const caption = element("figcaption", {}, element("span", {}, ...subscripted(title)));
    const readout = element("span", { class: "readout" });
    caption.append(readout);
    const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
    const node = element("figure", { class: "plot" }, caption, svg);
    let shown = null;

    function draw(x, lines) {
      const finite = lines.filter(({ y }) => y.some(Number.isFinite));
      let [low, high] = extent(finite, always);
      const grid = ticks(low, high);
      if (low < always[0]) low = Math.floor(low / grid.step + 1e-9) * grid.step;
      if (high > always[1]) high = Math.ceil(high / grid.step - 1e-9) * grid.step;
      const across = ticks(x[0], x[x.length - 1]);
      const right = x[x.length - 1];
      const px = (value) => BOX.left + ((value - x[0]) / (right - x[0])) * (BOX.right - BOX.left);
      const py = (value) => BOX.bottom - ((value - low) / (high - low)) * (BOX.bottom - BOX.top);
      const parts = [];
      for (const value of ticks(low, high).values) {
        const at = py(value).toFixed(1);
        parts.push(drawn("path", { class: "grid", d: `M${BOX.left} ${at}H${BOX.right}` }));
        parts.push(drawn("text", { x: BOX.left - 6, y: at, "text-anchor": "end", dy: "0.32em" }, tickText(value)));
      }
      for (const value of across.values) {
        const at = px(value).toFixed(1);
        parts.push(drawn("path", { class: "tick", d: `M${at} ${BOX.bottom}v4` }));
        parts.push(drawn("text", { x: at, y: BOX.bottom + 16, "text-anchor": "middle" }, tickText(value)));
      }
      parts.push(drawn("path", { class: "axis", d: `M${BOX.left} ${BOX.top}V${BOX.bottom}H${BOX.right}` }));
      parts.push(drawn("text", { class: "name", x: BOX.right, y: HEIGHT - 2, "text-anchor": "end" }, xText));
      for (const { y, kind } of finite) {
        let path = "";
        let pen = "M";
        for (let i = 0; i < x.length; i++) {
          if (Number.isFinite(y[i])) path += `${pen}${px(x[i]).toFixed(2)} ${py(y[i]).toFixed(2)}`;
          pen = Number.isFinite(y[i]) ? "L" : "M";
        }
        parts.push(drawn("path", { class: `line ${kind}`, d: path }));
      }
      svg.replaceChildren(...parts);
      shown = { x, finite, px, cursor: null };
      readout.textContent = "";
    }

    svg.addEventListener("pointermove", (event) => {
      if (!shown) return;
      const place = svg.getBoundingClientRect();
      const at = ((event.clientX - place.left) / place.width) * WIDTH;
      let nearest = 0;
      shown.x.forEach((value, i) => {
        if (Math.abs(shown.px(value) - at) < Math.abs(shown.px(shown.x[nearest]) - at)) nearest = i;
      });
      shown.cursor ??= svg.appendChild(drawn("path", { class: "cursor" }));
      shown.cursor.setAttribute("d", `M${shown.px(shown.x[nearest])} ${BOX.top}V${BOX.bottom}`);
      const values = shown.finite.map(({ y, kind }) => element("span", { class: kind }, ` ${short(y[nearest])}`));
      readout.replaceChildren(`${xText} = ${short(shown.x[nearest], 3)}:`, ...values.reverse());
    });
    svg.addEventListener("pointerleave", () => {
      shown?.cursor?.remove();
      if (shown) shown.cursor = null;
      readout.textContent = "";
    });
    return { node, draw };
  }

  // --- the page: all together ---

  function mount(root) {
    let kept = null;
    let now = null;
    const controls = Object.fromEntries(CONTROLS.map((control) => [control.key, makeControl(control, redraw)]));
    const keepTerms = element("input", { type: "checkbox", id: "explorer-second" });
    keepTerms.checked = true;
    keepTerms.addEventListener("change", redraw);
    const plots = {
      R: makePlot({ title: "Overlap R(α)", xText: "α", always: [0, 1] }),
      b: makePlot({ title: "Bias b(α)", xText: "α", always: [-0.1, 0.1] }),
      E: makePlot({ title: "Classification error E(α)", xText: "α", always: [0, 0.5] }),
      S: makePlot({ title: "Adversarial error S(α, ε_test)", xText: "α", always: [0, 1] }),
      robustness: makePlot({ title: "Robustness curve S(α_end, ε)", xText: "ε", always: [0, 1] }),
    };

    const button = (text, action) => {
      const node = element("button", { type: "button" }, text);
      node.addEventListener("click", action);
      return node;
    };
    const assign = (values) => {
      for (const control of CONTROLS) controls[control.key].set(values[control.key] ?? control.value);
      keepTerms.checked = values.second_order ?? true;
      redraw();
    };
    const presets = PRESETS.map(({ name, values }) => button(name, () => assign(values)));
    const keep = button("Keep this curve", () => {
      kept = kept ? null : now;
      keep.textContent = kept ? "Forget the kept curve" : "Keep this curve";
      redraw();
    });
    const legend = element("p", { class: "legend" });
    const status = element("p", { class: "status", role: "status" });
    const link = element("a", { href: "#explorer" }, "Link to these values");
    const code = element("pre", { class: "code" });
    const rare = element("details", {}, element("summary", {}, "Start, end, order"));
    rare.append(
      ...CONTROLS.filter((control) => control.rare).map(({ key }) => controls[key].node),
      element("label", { class: "check" }, keepTerms, " keep the terms in η", element("sub", {}, "w"), "²"),
    );
    const panel = element(
      "div", { class: "controls" }, ...CONTROLS.filter((control) => !control.rare).map(({ key }) => controls[key].node), rare,
    );
    const result = element("div", { class: "number" });
    root.replaceChildren(
      element("p", { class: "presets" }, ...presets, keep),
      element(
        "div", { class: "explorer" }, panel,
        element("div", { class: "shown" }, legend, status, element("div", { class: "plots" }, ...Object.values(plots).map(({ node }) => node), result)),
      ),
    );

    function redraw() {
      const all = Object.values(controls);
      const wrong = all.filter(({ valid }) => !valid);
      if (wrong.length) {
        status.textContent = `Not drawn anew: ${wrong.map(({ text, ...one }) => `${text} (${allowed(one)})`).join(", ")}`;
        return;
      }
      const { test, end, ...model } = Object.fromEntries(all.map(({ key, current }) => [key, current]));
      model.second_order = keepTerms.checked;
      const settings = { end, testEpsilon: test };
      const attacked = curves(model, settings);
      const standard = curves({ ...model, epsilon: 0 }, settings);
      now = { ...attacked, model };
      const short_of = attacked.reached < end ? attacked : standard.reached < end ? standard : null;
      status.textContent = short_of
        ? `Drawn to α = ${short(short_of.reached, 3)} only: beyond it too many steps are needed. Smaller learning rates or α_end help; odeflow.integrate goes on.`
        : "";
      for (const [name, plot] of Object.entries(plots)) {
        const x = name === "robustness" ? attacked.epsilon : attacked.alpha;
        const lines = [{ y: standard[name], kind: "standard" }, { y: attacked[name], kind: "attacked" }];
        if (kept) lines.unshift({ y: interpolated(kept, name, x), kind: "kept" });
        plot.draw(x, lines);
      }
      describe(model, settings, attacked, standard);
    }

    /** A kept curve on the present axis; NaN where it does not reach. */
    function interpolated(curve, name, x) {
      const from = name === "robustness" ? curve.epsilon : curve.alpha;
      return x.map((at) => {
        const i = Math.max(1, from.findIndex((value) => value >= at));
        if (at > from[from.length - 1]) return NaN;
        const share = (at - from[i - 1]) / (from[i] - from[i - 1]);
        return curve[name][i - 1] * (1 - share) + curve[name][i] * share;
      });
    }

    function describe(model, { end, testEpsilon }, attacked, standard) {
      const key = (kind, text) => element("span", { class: `key ${kind}` }, text);
      const items = [key("attacked", `adversarial training, ε = ${short(model.epsilon)}`), key("standard", "standard training, ε = 0")];
      if (kept) items.push(key("kept", `kept: ${difference(kept.model, model)}`));
      legend.replaceChildren(...items);

      const rows = [["R", "R"], ["b", "b"], ["E", "E"], ["S", `S(${short(testEpsilon)})`]].map(([name, text]) => {
        const cells = [attacked, standard].map((curve) => {
          const value = curve[name][curve[name].length - 1];
          return element("td", {}, Number.isFinite(value) ? value.toFixed(6) : "not reached");
        });
        return element("tr", {}, element("th", { scope: "row" }, text), ...cells);
      });
      const head = element("tr", {}, ...[`α = ${short(end)}`, "adversarial", "standard"].map((text) => element("th", { scope: "col" }, text)));
      const same = model.p === 0.5 && model.v1 === model.v2 && model.b0 === 0;
      const hint = element("p", { class: "hint" }, same ? "Equal classes: b stays at 0 here by symmetry, even where that state is unstable. Try b(0) = 0.001." : "");
      code.textContent = python(model, end, testEpsilon);
      const values = { ...model, second_order: Number(model.second_order), test: testEpsilon, end };
      link.href = `#explorer:${Object.entries(values).map(([name, value]) => `${name}=${value}`).join(",")}`;
      const parts = [element("table", {}, head, ...rows), link, element("details", {}, element("summary", {}, "The same in Python"), code)];
      if (result.querySelector("details[open]")) parts[2].open = true;
      result.replaceChildren(...parts, ...(same ? [hint] : []));
    }

    function difference(before, after) {
      const parts = CONTROLS.filter(({ key }) => key in before && before[key] !== after[key]);
      return parts.map(({ key, text }) => `${text.replace("_", "")} = ${short(before[key])}`).join(", ") || "the same";
    }

    function python(model, end, testEpsilon) {
      const { p, rho, v1, v2, epsilon, eta_w, eta_b, second_order, R0, b0 } = model;
      const order = second_order ? "" : ", second_order=False";
      return [
        "import numpy as np",
        "from odeflow import Adversary, GaussianMixture, LearningRule, integrate",
        "",
        "result = integrate(",
        `    GaussianMixture(p=${p}, rho=${rho}, v1=${v1}, v2=${v2}),`,
        `    LearningRule(eta_w=${eta_w}, eta_b=${eta_b}${order}),`,
        `    Adversary(${epsilon}),`,
        `    alpha=np.linspace(0, ${end}, 201), R0=${R0}, b0=${b0}, test_epsilon=${testEpsilon},`,
        ")",
      ].join("\n");
    }

    function fromAddress() {
      const prefix = "#explorer:";
      const address = decodeURIComponent(location.hash);
      if (!address.startsWith(prefix)) return false;
      const pairs = address.slice(prefix.length).split(",").map((pair) => pair.split("="));
      const values = Object.fromEntries(pairs.map(([name, value]) => [name, Number(value)]));
      assign({ ...values, second_order: values.second_order !== 0 });
      root.scrollIntoView();
      return true;
    }
    window.addEventListener("hashchange", fromAddress);
    if (!fromAddress()) redraw();
  }

  return { ...theory, mount };
})();

if (typeof module !== "undefined") module.exports = Explorer;
