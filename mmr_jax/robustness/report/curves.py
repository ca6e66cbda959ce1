"""The paper's figures 4 to 6 and the curve over the interpolation weight alpha."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from mmr_jax.robustness import views
from mmr_jax.robustness.report import canvas
from mmr_jax.robustness.report.blocks import Gallery, Picture
from mmr_jax.robustness.report.content import Content
from mmr_jax.robustness.report.words import SLICE_NAMES, metric_name, scale_of

DODGE = 0.03  # lines of several methods stand a little apart, so that their error bars can be told apart


def robustness_against_performance(content: Content) -> Picture:
    """Fig. 6: one point per M_T and method; above R = P no point can lie."""
    view, factor = views.performance_vs_robustness(content.summaries), scale_of(content).factor
    drawn = canvas.figure(4.6 + 0.11 * len(view))
    axes = drawn.add_subplot()
    handles = []
    for i, points in enumerate(view.values()):
        look = canvas.style(i) | {"linestyle": "none"}
        x = [performance.mean * factor for performance, _ in points.values()]
        y = [robustness.mean * factor for _, robustness in points.values()]
        handles += axes.plot(x, y, markersize=8, markeredgecolor="white", alpha=0.9, **look)
    # The bound R = P may lie far above the points; it must not squeeze them together.
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    axes.axline((0, 0), slope=1, color="#888888", linewidth=1, linestyle=":", zorder=0)
    unit = metric_name(content)
    canvas.finish(axes, f"performance P(M_T), {unit}", f"robustness R(M_T), {unit}")
    canvas.legend_below(drawn, handles, list(view))
    alt = "Robustness against performance, one point for each training set and method"
    return Picture("robustness-performance.png", "Robustness against performance", canvas.png(drawn), alt)


def by_overlap(content: Content) -> Picture:
    """Fig. 5: mean score of the cells whose training and evaluation sets share k modalities."""
    view = views.by_overlap(content.main)
    drawn = canvas.figure(4.2 + 0.11 * len(view))
    axes = drawn.add_subplot()
    handles = [
        _line(axes, stats, i, scale_of(content).factor, shift=(i - (len(view) - 1) / 2) * DODGE)
        for i, stats in enumerate(view.values())
    ]
    axes.set_xticks(range(len(content.modalities) + 1))
    canvas.finish(axes, "k = modalities shared by M_T and M_E", metric_name(content))
    canvas.legend_below(drawn, handles, list(view))
    title = "Score by overlap of training and evaluation modalities"
    return Picture("overlap.png", title, canvas.png(drawn), title + ", one line for each method")


def matched_by_size(content: Content) -> Gallery:
    """Fig. 4: M_T = M_E by number of modalities, a line per pretraining set, a picture per method."""
    view = views.matched_by_size(views.table_results(content.results, content.meta.get("alpha")))
    pretrainings = list(dict.fromkeys(name for sets in view.values() for name in sets))
    means = [stat.mean for sets in view.values() for sizes in sets.values() for stat in sizes.values()]
    factor = scale_of(content).factor
    margin = 0.08 * (max(means) - min(means) or 1)
    limits = ((min(means) - margin) * factor, (max(means) + margin) * factor)
    pictures = []
    for index, (method, sets) in enumerate(view.items()):
        drawn = canvas.figure(3.3 + 0.2 * len(pretrainings))
        axes = drawn.add_subplot()
        handles = [_line(axes, stats, pretrainings.index(name), factor) for name, stats in sets.items()]
        axes.set_xticks(range(1, len(content.modalities) + 1))
        axes.set_ylim(*limits)
        axes.set_title(canvas.label(method), fontsize=canvas.FONT + 1, fontweight="bold")
        canvas.finish(axes, "k = modalities in M_T = M_E", metric_name(content))
        if any(sets):
            canvas.legend_below(drawn, handles, [f"pretrained on {name or 'unsaid'}" for name in sets], 1)
        name = f"matched-{index + 1}-{canvas.slug(method)}.png"
        alt = f"{method}: score of matched subsets by number of modalities, one line for each pretraining set"
        pictures.append(Picture(name, method, canvas.png(drawn), alt))
    return Gallery(pictures, "Mean over the matched subsets that the pretraining set allows; bars: deviation.")


def alpha_curves(content: Content) -> Gallery:
    """P and R, overall and per slice, against the weight of the fine-tuned end, a picture per method."""
    pictures = []
    for index, (method, curve) in enumerate(content.curves.items()):
        drawn = canvas.figure(6.4)
        upper, lower = drawn.subplots(2, 1, sharex=True)
        handles = _curve(upper, curve, "performance", scale_of(content).factor)
        _curve(lower, curve, "robustness", scale_of(content).factor)
        upper.set_title(canvas.label(method), fontsize=canvas.FONT + 1, fontweight="bold")
        canvas.finish(upper, "", f"P, {metric_name(content)}")
        canvas.finish(lower, "alpha (0 = anchor, 1 = fine-tuned)", f"R, {metric_name(content)}")
        used = content.of_main(method)[0].alpha
        if used is not None:
            for axes in (upper, lower):
                axes.axvline(used, color="#888888", linewidth=1, linestyle=":", zorder=0)
        canvas.legend_below(drawn, handles, [SLICE_NAMES[name] for name in curve[0][1]], 4)
        name = f"alpha-{index + 1}-{canvas.slug(method)}.png"
        alt = f"{method}: performance and robustness, overall and for each slice, against alpha"
        pictures.append(Picture(name, method, canvas.png(drawn), alt))
    return Gallery(pictures, "Dotted: the alpha of the tables. Bars: deviation over seeds.")


def _curve(axes: Axes, curve: list, key: str, factor: float) -> list:
    names = list(curve[0][1])
    return [_line(axes, {alpha: table[name][key] for alpha, table in curve}, i, factor) for i, name in enumerate(names)]


def _line(axes: Axes, stats: Mapping[float, views.Stat], index: int, factor: float, shift: float = 0):
    """Means with bars of one deviation where there is one; returns the handle for a legend."""
    x = [k + shift for k in stats]
    y = [stat.mean * factor for stat in stats.values()]
    bars = [stat.sd * factor if stat.sd == stat.sd else 0 for stat in stats.values()]
    return axes.errorbar(x, y, bars, capsize=2.5, markersize=6, linewidth=1.6, **canvas.style(index))
