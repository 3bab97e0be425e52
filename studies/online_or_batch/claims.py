"""What the study online_or_batch claims, and its table."""


def claims(data, plan):
    return []


def table(data):
    return ""
