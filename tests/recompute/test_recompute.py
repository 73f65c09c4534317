"""What the recomputation says of small streams whose features were worked out by hand, and of outputs that are wrong.

    python3 -m unittest discover tests/recompute
"""

import contextlib
import io
import json
import pathlib
import tempfile
import unittest

from features import text_hash
from recompute import murmur2, run
from windows import Refused

SECOND = 1000


def told(features, records, outputs, keyed=False, partitions=1, more=""):
    """The exit code, and what is printed. Records are (time in seconds, key, fields); outputs are features, or whole lines."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        key = 'key = "$.key"' if keyed else ""
        lines = "\n".join(f"[[model_topic.feature]]\n{feature}" for feature in features)
        (folder / "config.toml").write_text(
            f'[[model_topic]]\nname = "out"\ninput = "in"\nmodel = "m"\n{key}\n{more}\n'
            f'output = {{ template = {{ f = "$f" }} }}\n{lines}\n')
        inputs, found = folder / "inputs", folder / "outputs"
        inputs.mkdir(), found.mkdir()
        for partition in range(partitions):
            (inputs / f"in-{partition}.tsv").write_text("".join(
                f'{offset}\t{int(time * SECOND)}\t{json.dumps(key)}\t{json.dumps({"key": key, **fields})}\n'
                for offset, (time, key, fields) in enumerate(records)) if partition == 0 else "")
        text = "".join(
            line if isinstance(line, str) else f'in\t0\t{offset}\t{json.dumps(records[offset][1])}\t{json.dumps({"f": line})}\n'
            for offset, line in enumerate(outputs))
        (found / "0.tsv").write_text(text)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                code = run(folder / "config.toml", "out", inputs, found)
            except Refused as refused:
                return 2, str(refused)
        return code, out.getvalue()


def amounts(*pairs, key="a"):
    return [(time, key, {"x": x}) for time, x in pairs]


def text_hash_by_hand(fnv):
    """MurmurHash3's finalizer, of the FNV-1a that its authors publish for a text."""
    fnv = (fnv ^ fnv >> 33) * 0xFF51AFD7ED558CCD % 2**64
    fnv = (fnv ^ fnv >> 33) * 0xC4CEB9FE1A85EC53 % 2**64
    return fnv ^ fnv >> 33


class Values(unittest.TestCase):
    def holds(self, features, records, expected, **options):
        """Each feature's values, in the records' order."""
        outputs = [dict(zip(expected, row)) for row in zip(*expected.values())]
        code, text = told(features, records, outputs, **options)
        self.assertEqual(code, 0, text)
        # Each of them is looked at.
        for offset, row in enumerate(outputs):
            for name, value in row.items():
                if isinstance(value, (int, float)):
                    wrong = [dict(row) for row in outputs]
                    wrong[offset][name] = value * 1.5 + 1
                    self.assertEqual(told(features, records, wrong, **options)[0], 1, (offset, name))

    def test_hashes(self):
        for text, found in [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)]:
            self.assertEqual(murmur2(text.encode()), found % 2**32)
        self.assertEqual(text_hash("a"), text_hash_by_hand(0xAF63DC4C8601EC8C))

    def test_sliding(self):
        # Slices of a second; the window of second s is s-2, s-1 and s.
        window = 'window = { sliding = "3s", slice = "1s", grace = "2s" }'
        self.holds(
            [f'name = "n"\nagg = "count"\n{window}', f'name = "sum"\nagg = "sum"\npath = "$.x"\n{window}',
             f'name = "most"\nagg = "max"\npath = "$.x"\n{window}', f'name = "d"\nagg = "distinct"\npath = "$.x"\n{window}',
             f'name = "q"\nagg = "quantile(1)"\npath = "$.x"\n{window}', f'name = "r"\nagg = "rate"\n{window}'],
            amounts((0.5, 8), (1.9, 2), (2, 2), (3.2, 1), (2.5, 4), (9, 1)),
            {
                "n": [1, 2, 3, 3, 4, 1], "sum": [8, 10, 12, 5, 16, 1], "most": [8, 8, 8, 2, 8, 1],
                "d": [1, 2, 2, 2, 3, 1], "q": [8, 8, 8, 2, 8, 1], "r": [1 / 3, 2 / 3, 1, 1, 4 / 3, 1 / 3],
            })

    def test_tumbling(self):
        window = 'window = { tumbling = "10s", grace = "5s" }'
        self.holds(
            [f'name = "mean"\nagg = "mean"\npath = "$.x"\n{window}', f'name = "std"\nagg = "std"\npath = "$.x"\n{window}',
             f'name = "least"\nagg = "min"\npath = "$.x"\ndefault = -1\n{window}', f'name = "n"\nagg = "count"\npath = "$.x"\n{window}'],
            amounts((0, 2), (9.999, 4), (10, 7), (9, 6), (11, None), (30, None)),
            {
                "mean": [2, 3, 7, 4, 7, 0], "std": [0, 1, 0, (8 / 3) ** 0.5, 0, 0], "least": [2, 2, 7, 2, 7, -1],
                "n": [1, 2, 1, 3, 1, 0],
            })

    def test_session(self):
        window = 'window = { session = "10s", grace = "20s" }'
        self.holds(
            [f'name = "n"\nagg = "count"\n{window}', f'name = "r"\nagg = "rate"\n{window}',
             f'name = "d"\nagg = "distinct"\npath = "$.x"\n{window}', f'name = "v"\nagg = "rate"\npath = "$.x"\n{window}'],
            # The second joins the first, the third begins one, the fourth joins both.
            amounts((0, 1), (10, 1), (20.001, 2), (15, 1), (31, 5), (41, None)),
            {
                "n": [1, 2, 1, 4, 1, 2], "r": [0, 0.2, 0, 4 / 20.001, 0, 0.2], "d": [1, 1, 1, 2, 1, 1],
                # What has no value prolongs nothing.
                "v": [0, 0.2, 0, 4 / 20.001, 0, 0],
            })

    def test_last_records(self):
        self.holds(
            ['name = "most"\nagg = "max"\npath = "$.x"\nwindow = { last = 2 }', 'name = "r"\nagg = "rate"\nwindow = { last = 2 }',
             'name = "l"\nagg = "last"\npath = "$.x"\ndefault = -1\nwindow = { last = 2 }'],
            amounts((0, 9), (4, 2), (5, 3), (5, None), (6, 1)),
            {"most": [9, 9, 3, 3, 3], "r": [0, 0.5, 2, 0, 2], "l": [-1, 9, 2, 3, 3]})

    def test_whole_numbers_that_no_double_is(self):
        big = 1 << 53
        apart = ['name = "d"\nagg = "distinct"\npath = "$.x"']
        self.holds(apart, amounts((0, big), (1, big + 1), (2, big), (3, float(big)), (4, big + 2)), {"d": [1, 2, 2, 2, 3]})
        summed = apart + ['name = "sum"\nagg = "sum"\npath = "$.x"']
        code, text = told(summed, amounts((0, big + 1)), [{"d": 1, "sum": big}])
        self.assertEqual(code, 2, text)

    def test_before(self):
        self.holds(
            ['name = "l"\nagg = "last"\npath = "$.x"\ndefault = -1', 'name = "d"\nagg = "delta"\npath = "$.x"',
             'name = "t"\nagg = "time_since_last"\ndefault = 7',
             'name = "w"\nagg = "last"\npath = "$.x"\nwindow = { sliding = "2s", slice = "1s" }'],
            amounts((0, 9), (1.5, 2), (1.25, 3), (1.75, 5), (9, 8)),
            {"l": [-1, 9, 2, 2, 5], "d": [0, -7, 1, 3, 3], "t": [7, 1.5, 0, 0.25, 7.25], "w": [0, 9, 2, 2, 0]})

    def test_forgotten(self):
        self.holds(
            ['name = "n"\nagg = "count"', 'name = "s"\nagg = "sum"\npath = "$.x"\nwindow = { last = 9 }'],
            amounts((0, 1), (9.999, 2), (19.999, 4), (20, 8)),
            {"n": [1, 2, 1, 2], "s": [1, 3, 4, 12]}, more='state = { ttl = "10s" }')

    def test_fields(self):
        code, text = told(
            ['name = "log"\npath = "$.x"\nop = "log1p"\nscale = { mean = 1, std = 2 }',
             'name = "range"\npath = "$.x"\ndefault = 5\nscale = { min = 0, max = 10 }',
             'name = "one"\npath = "$.c[0]"\none_hot = ["CZ", "DE"]\ndefault = "DE"', 'name = "b"\npath = "$.t"\ncast = "bool"',
             'name = "hash"\npath = "$.c[0]"\nhash = 2\ndefault = ""', 'name = "t"\npath = "$.x"\ncast = "text"'],
            [(0, "a", {"x": 3, "c": ["CZ"], "t": "true"}), (1, "a", {"x": 0, "t": 0})],
            [{"log": 0.1931471805599453, "range": 0.3, "one": [1, 0], "b": 1, "t": "3",
              "hash": [1 - text_hash("CZ") % 2, text_hash("CZ") % 2]},
             {"log": -0.5, "range": 0, "one": [0, 1], "b": 0, "t": "0", "hash": [1 - text_hash("") % 2, text_hash("") % 2]}])
        self.assertEqual(code, 0, text)


class Mutations(unittest.TestCase):
    FEATURES = ['name = "n"\nagg = "count"', 'name = "sum"\nagg = "sum"\npath = "$.x"']
    RECORDS = amounts((0, 1.5), (1, 2.5), (2, 4.0)) + [(3, "b", {"x": 0.1})]
    RIGHT = [{"n": 1, "sum": 1.5}, {"n": 2, "sum": 4.0}, {"n": 3, "sum": 8.0}, {"n": 1, "sum": 0.1}]

    def code(self, outputs, records=RECORDS, **options):
        return told(self.FEATURES, records, outputs, **options)

    def test_right(self):
        self.assertEqual(self.code(self.RIGHT)[0], 0)
        self.assertEqual(self.code(self.RIGHT, keyed=True)[0], 0)

    def test_wrong(self):
        line = 'in\t0\t1\t"a"\t{"f": {"n": 2, "sum": 4.0}}\n'
        for kind, outputs in [
            ("missing", self.RIGHT[:3]),
            ("doubled", self.RIGHT + [line]),
            ("unasked", self.RIGHT + [line.replace("\t1\t", "\t4\t")]),
            ("n", [self.RIGHT[0], {"n": 3, "sum": 4.0}] + self.RIGHT[2:]),
            ("sum", [self.RIGHT[0], {"n": 2, "sum": 4.0 * (1 + 1e-6)}] + self.RIGHT[2:]),
            ("features", [self.RIGHT[0], {"n": 2}] + self.RIGHT[2:]),
            ("key", [self.RIGHT[0], line.replace('"a"', '"b"')] + self.RIGHT[2:]),
        ]:
            code, text = self.code(outputs)
            self.assertEqual((code, text.partition(":")[0]), (1, kind), text)

    def test_misplaced(self):
        # Of two partitions "a" is in the first, and "d" in the second.
        for key, expected in [("a", 0), ("d", 1)]:
            code, text = self.code(self.RIGHT[:1], amounts((0, 1.5), key=key), keyed=True, partitions=2)
            self.assertEqual(code, expected, text)

    def test_refused(self):
        late = 'name = "n"\nagg = "count"\nwindow = { tumbling = "1s" }'
        code, text = told([late], amounts((0, 1), (1, 1), (0.5, 1)), [{"n": 1}] * 3)
        self.assertEqual((code, "may be late" in text), (2, True), text)


if __name__ == "__main__":
    unittest.main()
