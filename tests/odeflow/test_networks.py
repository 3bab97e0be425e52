"""What every network owes the rest, over all that are registered: a new one is tested by being in `NETWORKS`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from odeflow import (
    Adversary,
    GaussianMixture,
    LearningRule,
    fixed_points,
    integrate,
    integrate_batch,
    learning_time,
    load,
    relaxation_time,
    save,
    simulate,
    sweep,
)
from odeflow.cli import main
from odeflow.laws import Discrete
from odeflow.order_parameters import NETWORKS, Network
from odeflow.order_parameters.base import flat, unflat
from odeflow.parameters import parameter_of
from odeflow.plot import plot

MIXTURE, ADVERSARY = GaussianMixture(0.7, 2.0, 1.0, 0.8), Adversary(0.4)
RULE = LearningRule(0.5, 0.3)
every_network = pytest.mark.parametrize("network", [kind() for kind in NETWORKS.values()], ids=list(NETWORKS))


def start(network: Network, rule: LearningRule) -> dict[str, Any]:
    """Return a state that is no special point."""
    rng = np.random.default_rng(1)
    return {v.name: v.start + 0.3 + 0.1 * rng.random(v.sizes) for v in network.variables(rule)}


@every_network
def test_its_kernel_is_its_reference(network: Network) -> None:
    # over a short time the kernel's trajectory is that of classical Runge-Kutta steps with the reference
    rule = RULE if network.name != "perceptron" else LearningRule(0.5, 0.3, normalised=False, loss="hinge")
    variables = network.variables(rule)
    adversary = Adversary(0.4, fraction=0.7, law=Discrete((0.5, 1.5), (0.4, 0.6)))

    def rates(y: Any) -> Any:
        return flat(network.rates(unflat(y, variables), MIXTURE, rule, adversary), variables)

    y, h = flat(start(network, rule), variables), 0.02
    for _ in range(10):
        k1 = rates(y)
        k2 = rates(y + h / 2 * k1)
        k3 = rates(y + h / 2 * k2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + rates(y + h * k3))
    found = integrate(MIXTURE, rule, adversary, network=network, alpha=[0.2], start=start(network, rule))
    exact = flat({v.name: found[v.name].isel(alpha=0).values for v in variables}, variables)
    np.testing.assert_allclose(y, exact, rtol=3e-8, atol=3e-8)


@every_network
def test_its_jacobian_is_that_of_its_rates(network: Network) -> None:
    variables = network.variables(RULE)
    state = start(network, RULE)
    J = network.jacobian(state, MIXTURE, RULE, ADVERSARY)
    y = flat(state, variables)
    for column in range(y.size):
        step = np.zeros(y.size)
        step[column] = 1e-5
        above, below = (
            flat(network.rates(unflat(z, variables), MIXTURE, RULE, ADVERSARY), variables) for z in (y + step, y - step)
        )
        np.testing.assert_allclose(J[:, column], (above - below) / 2e-5, atol=1e-8)


@every_network
@pytest.mark.parametrize("method", ["reduced", "direct"])
@pytest.mark.slow
def test_its_simulation_is_its_theory_up_to_1_over_N(network: Network, method: Any) -> None:
    N, runs = (2000, 60) if method == "reduced" else (400, 40)
    alpha = np.array([1.0, 4.0])
    rule = LearningRule(0.5, 0.3, normalised=network.name == "perceptron")
    begin = None if network.name == "perceptron" else {"Q": 0.6}
    theory = integrate(MIXTURE, rule, ADVERSARY, network=network, alpha=alpha, start=begin)
    points = simulate(
        MIXTURE, rule, ADVERSARY, network=network, alpha=alpha, start=begin, N=N, runs=runs, method=method, rng=2
    )
    for name in [*(v.name for v in network.variables(rule)), "error", "adversarial_error"]:
        gap = points[name].mean("run") - theory[name]
        error = points[name].std("run", ddof=1) / runs**0.5
        # 4.5 standard errors, and the finite N
        assert np.all(abs(gap) <= 4.5 * error + 6 / N), (name, gap.values, error.values)
        if float(points[name].std("run").max()) > 0:  # a law without noise is no simulation
            assert np.all(error * runs**0.5 * N**0.5 > 0.01), name


@every_network
def test_its_error_is_the_share_of_examples_that_an_attack_turns(network: Network) -> None:
    # seen on the classes' margins: the state's error grows with epsilon, is E at 0, and tends to the share of ... 1
    points = {"p": 0.7, "rho": 2.0, "v1": 1.0, "v2": 0.8}
    state = {name: np.asarray(value) for name, value in start(network, RULE).items()}
    S = np.array(
        [
            float(network.measured(state, MIXTURE, points, epsilon)["adversarial_error"])
            for epsilon in (0.0, 0.5, 1.0, 20.0)
        ]
    )
    assert np.all(np.diff(S) > 0)
    assert 0 < S[0] < 0.7
    assert S[-1] == pytest.approx(1.0)


@every_network
@pytest.mark.slow
def test_every_face_takes_it(network: Network, tmp_path: Path) -> None:
    alpha = [0.0, 1.0, 3.0]
    over = {"epsilon": [0.0, 0.4], f"{network.variables(RULE)[-1].name}0": [0.0, 0.2, 0.3]}
    swept = sweep(MIXTURE, RULE, ADVERSARY, network=network, over=over, alpha=alpha, store=tmp_path / "sweep.nc")
    initial: dict[str, Any] = {list(over)[1]: 0.2}
    one = integrate(MIXTURE, RULE, ADVERSARY, network=network, alpha=alpha, **initial)
    at = swept.isel({"epsilon": 1, list(over)[1]: 1})
    for variable in network.variables(RULE):
        np.testing.assert_array_equal(at[variable.name], one[variable.name])
        assert one[variable.name].attrs["long_name"] == variable.label
    np.testing.assert_array_equal(at.adversarial_error, one.adversarial_error)
    runs = sweep(
        MIXTURE, RULE, ADVERSARY, network=network, over=over, alpha=alpha, compute="simulate", N=20, runs=2, rng=1
    )
    for result in (swept, one, runs, runs.isel(epsilon=0), runs.isel({"epsilon": 0, list(over)[1]: 0})):
        assert len(plot(result).axes) >= len(network.variables(RULE)) + 1
    back = load(save(one, tmp_path / "one.nc"))
    xr.testing.assert_identical(back, one)
    for name, parameter in parameter_of(network).items():
        assert parameter.range is None or name in one.coords
    recorded = json.loads(one.attrs["configuration"])["options"].get("network", {"name": "perceptron"})
    assert recorded["name"] == network.name


@every_network
def test_a_batch_is_its_points(network: Network) -> None:
    model: dict[str, Any] = {"epsilon": np.array([0.0, 0.4, 0.9]), "p": 0.7, "eta_w": 0.5}
    batch = integrate_batch(alpha=[0.5, 2.0], network=network, **model)
    for i, epsilon in enumerate(model["epsilon"]):
        one = integrate_batch(alpha=[0.5, 2.0], network=network, **{**model, "epsilon": epsilon})
        np.testing.assert_array_equal(batch.y[i], one.y[0])


@every_network
@pytest.mark.slow
def test_learning_comes_to_rest_at_one_of_its_fixed_points(network: Network) -> None:
    end = integrate(MIXTURE, RULE, ADVERSARY, network=network, alpha=[3000.0])
    points = fixed_points(MIXTURE, RULE, ADVERSARY, network=network)
    variables = network.variables(RULE)
    states = flat({v.name: points[v.name].values for v in variables}, variables)
    last = flat({v.name: end[v.name].values[0] for v in variables}, variables)
    near = np.max(np.abs(states - last), axis=1)
    assert near.min() < 1e-5
    assert bool(points.stable[int(near.argmin())])
    assert float(relaxation_time(MIXTURE, RULE, ADVERSARY, network=network)[int(near.argmin())]) > 0
    goal = float(end.error[0]) + 0.05
    time = learning_time(MIXTURE, RULE, ADVERSARY, network=network, error=goal)
    there = integrate(MIXTURE, RULE, ADVERSARY, network=network, alpha=[time])
    assert float(there.error[0]) == pytest.approx(goal, abs=1e-8)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_command_line_has_its_flags(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["integrate", "--network", name, "--help"])
    text = capsys.readouterr().out
    network = NETWORKS[name]()
    for variable in network.starts(LearningRule()):
        assert f"--{variable.start_name}" in text
    for field in parameter_of(network):
        assert field.replace("_", "-") in text
    out = tmp_path / "run.nc"
    assert (
        main(f"integrate --network {name} --alpha-max 2 --points 3 --out {out} --plot {tmp_path / 'a.png'}".split())
        == 0
    )
    assert all(f"{v.name} = " in capsys.readouterr().out for v in network.variables(LearningRule())[:1])
    assert load(out).sizes["alpha"] == 3


@every_network
def test_bad_starts_are_one_clear_line(network: Network) -> None:
    def run(**arguments: Any) -> None:
        integrate(MIXTURE, RULE, ADVERSARY, network=network, alpha=[1.0], **arguments)

    name = network.variables(RULE)[-1].name
    with pytest.raises(TypeError, match=f"start has no variable 'z': allowed for the {network.name} are "):
        run(start={"z": 1.0})
    with pytest.raises(TypeError, match="'z0' is not a parameter: the "):
        run(z0=1.0)
    with pytest.raises(TypeError, match=rf"start\['{name}'\] and {name}0 are both given"):
        run(start={name: 0.0}, **{f"{name}0": 0.0})
    with pytest.raises(ValueError, match=f"{name}0 = nan is out of range: allowed is"):
        run(**{f"{name}0": np.nan})
    with pytest.raises(TypeError, match="network = 'perceptron' is of the wrong type: allowed is Perceptron"):
        integrate(MIXTURE, RULE, ADVERSARY, alpha=[1.0], network="perceptron")  # type: ignore[arg-type]
