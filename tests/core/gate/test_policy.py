import pytest

from bc_core.gate._policy import policy_of, read_policy

WHOLE = """
promise = ["nfr <= 0.5%", "btc >= 98%"]
non_inferiority = "0.5%"
confidence = 0.9
critical = "critical.txt"
accepted = "lists/accepted.csv"
classes = ["cat", "dog"]

[columns]
id = "key"
by_position = false

[per_class]
promise = "nfr <= 2%"
only = ["cat", "d*"]
least = 50

[[per_slice]]
column = "region"
promise = "nfr <= 1%"

[[per_slice]]
column = "region"
min_gain = -0.01
only = "eu"
"""


def test_a_policy_says_everything_that_is_asked(tmp_path):
    path = tmp_path / "compat.toml"
    path.write_text(WHOLE)
    policy = policy_of(read_policy(path), str(path))
    assert str(policy.bounds.promise) == "nfr <= 0.5%, btc >= 98%"
    assert (policy.bounds.min_gain, policy.bounds.margin) == (-0.005, True)
    assert policy.confidence == 0.9
    assert policy.critical == tmp_path / "critical.txt"
    assert policy.accepted == tmp_path / "lists" / "accepted.csv"
    assert policy.classes == ("cat", "dog")
    assert (policy.columns.id, policy.columns.slices) == ("key", ("region",))
    first, second, third = policy.parts
    assert (first.column, first.only, first.least) == (None, ("cat", "d*"), 50)
    assert (second.column, second.only, second.least) == ("region", (), 30)
    assert (third.bounds.min_gain, third.bounds.margin, third.only) == (-0.01, False, ("eu",))


def test_the_table_of_a_pyproject_is_the_same_policy(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n[tool.bc-compare]\npromise = "nfr <= 1%"\n')
    assert read_policy(path) == {"promise": "nfr <= 1%"}
    path.write_text('[project]\nname = "x"\n')
    with pytest.raises(ValueError, match=r"pyproject.toml: it has no \[tool.bc-compare\]"):
        read_policy(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("promise = ", "not TOML"),
        ('promis = "nfr <= 1%"', "unknown key 'promis'; did you mean promise?"),
        ('zebra = "nfr <= 1%"', "unknown key 'zebra'; it may have promise, "),
        ('promise = "nfr >= 1%"', 'Write "nfr <= 1%"'),
        ('promise = "speed <= 1%"', "Unknown score"),
        ('promise = ["nfr <= 1%", "nfr <= 2%"]', "one bound on each score"),
        ("promise = 5", "A promise is a text"),
        ('min_gain = "1%"\nnon_inferiority = "1%"', "two bounds on one number"),
        ("non_inferiority = 0", "needs a margin above 0"),
        ('non_inferiority = "-1%"', "must be a share from 0 to 1"),
        ("min_gain = 2", "min_gain must be a share from -1 to 1"),
        ('promise = "nfr <= 0.5"', 'the limit must have a % sign, "50%" or "0.5%"'),
        ("non_inferiority = 0.5", 'non_inferiority must have a % sign, "50%" or "0.5%"'),
        ("min_gain = -0.5", 'min_gain must have a % sign, "-50%" or "-0.5%"'),
        ("min_gain = true", "min_gain must be a share"),
        ('min_gain = "much"', "min_gain must be a share"),
        ("confidence = 1.0", "confidence must be below 1"),
        ("confidence = 0.1", "confidence must be a share from 0.5 to 1"),
        ("critical = 3", "critical must be the path of a file"),
        ("classes = []", "classes must be a list of names"),
        ("classes = [1]", "classes must be a list of names"),
        ('per_class = "nfr <= 1%"', "per_class must be a table"),
        ("[per_class]\nleast = 3", "per_class: nothing is asked"),
        ('[per_class]\npromise = "nfr <= 1%"\nleast = 0', "least must be a number of instances"),
        ('[per_class]\npromise = "nfr <= 1%"\nleast = true', "least must be a number of instances"),
        ('[per_class]\npromise = "nfr <= 1%"\ncolumn = "x"', "per_class: unknown key 'column'"),
        ('[per_slice]\npromise = "nfr <= 1%"', r"begun by \[\[per_slice\]\]"),
        ('[[per_slice]]\npromise = "nfr <= 1%"', "per_slice 1: column must name a column"),
        ("[columns]\nid = 3", "id must be the name of a column"),
        ('[columns]\nby_position = "yes"', "by_position must be true or false"),
        ('[columns]\nprediction = "p"', "columns: unknown key 'prediction'; did you mean pred?"),
    ],
)
def test_what_a_policy_cannot_mean_is_refused(tmp_path, text, message):
    path = tmp_path / "compat.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        policy_of(read_policy(path), str(path))
    assert str(path) in str(caught.value)


def test_a_policy_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "compat.toml"
    path.write_bytes("promise = 'ä'".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8, as TOML must be"):
        read_policy(path)
