from __future__ import annotations

from xml.etree import ElementTree as ET

from bench import field, picture, report
from tests.bench.results import BEST_PEER, SLOW_PEER, make_results, make_runs

THROUGHPUT = [
    *make_runs(field.BEST, "jobs_per_second", 30_000, 20_000, 10_000),
    *make_runs(SLOW_PEER, "jobs_per_second", 100),
    *make_runs(BEST_PEER, "jobs_per_second", 5_000),
]


def test_the_report_shows_the_ratios_first_and_every_round() -> None:
    text = report.render(make_results(throughput=THROUGHPUT), picture="bench.svg")

    assert "| no-op throughput ÷ best peer | **4.00** | ≥ 2 | met |" in text
    assert "**20,000** (30,000, 20,000, 10,000)" in text
    assert text.index("## Targets") < text.index("## No-op jobs")


def test_the_report_names_contenders_that_could_not_be_measured() -> None:
    broken = {"label": "awa", "name": "awa", "kind": "peer", "failed": "awa: no such module"}

    text = report.render(make_results(throughput=[*THROUGHPUT, broken]), picture="bench.svg")

    assert "Not measured: awa: no such module." in text
    assert all(name in text for name in field.ABSENT)


def test_the_report_warns_of_a_machine_that_was_not_quiet_and_of_a_quick_look() -> None:
    quiet = make_results(throughput=[THROUGHPUT[0] | {"others_cores": 0.05}])
    loud = make_results(throughput=[THROUGHPUT[0] | {"others_cores": 1.5}])
    loud["conditions"]["scale"] = 0.1

    assert "not quiet" not in report.render(quiet, picture="")
    assert "quick look" not in report.render(quiet, picture="")
    assert "not quiet" in report.render(loud, picture="")
    assert "quick look" in report.render(loud, picture="")


def test_the_picture_has_one_bar_for_each_contender_the_longest_first() -> None:
    drawn = ET.fromstring(picture.draw({"throughput": THROUGHPUT}))

    bars = [float(each.attrib["width"]) for each in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert bars == sorted(bars, reverse=True)
    assert texts[1:] == ["pgworker", "20,000", "pgqueuer", "5,000"]
