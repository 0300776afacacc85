//! From recordings and findings to plots.

use crate::experiment::{Experiment, Metric, PlotKind, Series, Unit, label};
use crate::measure::{Finding, Outcome};
use crate::plot::{Bar, Bars, Chart, Layer, Quantified, Shape, Size};
use crate::record::{Recording, Run};
use crate::sample::{Column, Samples};
use crate::statistics::quantile;

/// A plot, drawn.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Name of its files, without `.svg` and `.png`.
    pub name: String,
    /// For a page that has the style.
    pub inline: String,
    /// As a file of its own.
    pub alone: String,
    /// Whether it is one panel among others.
    pub panel: bool,
}

impl Figure {
    fn chart(name: String, chart: &Chart, panel: bool) -> Self {
        let size = if panel { Size::PANEL } else { Size::WIDE };
        Self { name, inline: chart.draw(size), alone: chart.draw_alone(size), panel }
    }

    fn bars(name: String, bars: &Bars) -> Self {
        Self { name, inline: bars.draw(Size::WIDE), alone: bars.draw_alone(Size::WIDE), panel: false }
    }
}

/// All plots of an experiment.
#[must_use]
pub fn figures(experiment: &Experiment, recording: &Recording, outcome: &Outcome) -> Vec<Figure> {
    let view = View { experiment, recording, outcome };
    let mut figures = Vec::new();
    for (index, plot) in experiment.plots.iter().enumerate() {
        let name = format!("{:02}", index + 1);
        let title = plot.title.clone();
        match &plot.kind {
            PlotKind::Time(series) => figures.extend(view.time(&name, title, *series)),
            PlotKind::Against { name: varied, measures } => {
                let title = title.unwrap_or_else(|| format!("{} against {varied}", measures.join(", ")));
                let chart = view.against(title, varied, measures);
                figures.push(Figure::chart(format!("{name}-against-{varied}"), &chart, false));
            }
            PlotKind::Bars(measures) => {
                for (number, bars) in view.bars(title, measures).iter().enumerate() {
                    figures.push(Figure::bars(format!("{name}-bars-{}", number + 1), bars));
                }
            }
            PlotKind::Distribution(measures) => {
                let title = title.unwrap_or_else(|| format!("Distribution of {}", measures.join(", ")));
                let chart = view.distribution(title, measures);
                figures.push(Figure::chart(format!("{name}-distribution"), &chart, false));
            }
        }
    }
    figures
}

struct View<'a> {
    experiment: &'a Experiment,
    recording: &'a Recording,
    outcome: &'a Outcome,
}

impl View<'_> {
    /// One panel per setting: the first repetition of each engine.
    fn time(&self, name: &str, title: Option<String>, series: Series) -> Vec<Figure> {
        let cells = self.experiment.cells.len();
        let title = title.unwrap_or_else(|| capital(series.title()));
        let mut charts: Vec<Chart> = (0..cells).map(|cell| self.panel(&title, cell, series)).collect();
        let high = charts.iter().map(|chart| chart.y_at_least).fold(0.0, f64::max);
        // Panels beside each other have one scale.
        charts.iter_mut().for_each(|chart| chart.y_at_least = high);
        let figure = |(cell, chart): (usize, &Chart)| {
            Figure::chart(format!("{name}-{}-{}", series.word(), cell + 1), chart, cells > 1)
        };
        charts.iter().enumerate().map(figure).collect()
    }

    fn panel(&self, title: &str, cell: usize, series: Series) -> Chart {
        let several = self.recording.engines.len() > 1;
        let setting = label(&self.recording.cells[cell]);
        let title = if setting.is_empty() { title.to_owned() } else { format!("{title}: {setting}") };
        let runs = (0..self.recording.engines.len()).filter_map(|engine| {
            let mut runs = self.recording.runs.iter();
            runs.find(|run| run.engine == engine && run.cell == cell).map(|run| (engine, run))
        });
        let tracks: Vec<(String, usize, bool, &Samples)> = runs
            .clone()
            .flat_map(|(engine, run)| {
                run.containers.iter().enumerate().map(move |(colour, container)| {
                    let mut name = container.name.clone();
                    if several {
                        name = format!("{name} on {}", self.recording.engines[engine].name);
                    }
                    // A colour for each container; or for each engine, if there is but one container.
                    let colour = if run.containers.len() == 1 { engine } else { colour };
                    (name, colour, engine > 0, &container.samples)
                })
            })
            .collect();
        let events = runs.take(1).flat_map(|(_, run)| changes(run)).collect();
        time_chart(title, series, &tracks, events)
    }

    fn findings(&self, measure: &str) -> impl Iterator<Item = &Finding> {
        self.outcome.findings.iter().filter(move |finding| finding.label == measure)
    }

    fn quantified(&self, measures: &[String]) -> (Quantified, String) {
        let of = |measure: &String| self.findings(measure).collect::<Vec<_>>();
        let all: Vec<&Finding> = measures.iter().flat_map(of).collect();
        let highest = all.iter().flat_map(|finding| finding.values.iter()).copied().fold(0.0, f64::max);
        let unit = all.first().map_or(Unit::Count, |finding| finding.unit);
        (Quantified::of(unit, highest), self.title_of(measures))
    }

    /// What the measures measure, in words; their labels if they measure different things.
    fn title_of(&self, measures: &[String]) -> String {
        let scenario = &self.experiment.cells[0].scenario;
        let metrics: Vec<(Metric, bool)> = measures
            .iter()
            .filter_map(|label| scenario.measures.iter().find(|measure| measure.label == *label))
            .map(|measure| (measure.of.metric, measure.over.is_some()))
            .collect();
        match metrics.split_first() {
            Some(((metric, false), rest)) if rest.iter().all(|other| *other == (*metric, false)) => {
                metric.title().to_owned()
            }
            Some(((metric, true), rest)) if rest.iter().all(|(_, ratio)| *ratio) => {
                format!("{}, ratio", metric.title())
            }
            _ => measures.join(", "),
        }
    }

    fn against(&self, title: String, varied: &str, measures: &[String]) -> Chart {
        let (shown, title_of) = self.quantified(measures);
        let engines = self.recording.engines.len();
        let mut values: Vec<&str> = Vec::new();
        for cell in &self.recording.cells {
            if !values.contains(&cell[varied].as_str()) {
                values.push(&cell[varied]);
            }
        }
        let numbers: Option<Vec<f64>> = values.iter().map(|value| value.parse().ok()).collect();
        let place = |cell: usize| {
            let value = self.recording.cells[cell][varied].as_str();
            let index = values.iter().position(|known| *known == value).unwrap_or(0);
            numbers.as_ref().map_or(index as f64, |numbers| numbers[index])
        };
        let mut layers = Vec::new();
        let mut ideals: Vec<Vec<(f64, f64)>> = Vec::new();
        for (number, measure) in measures.iter().enumerate() {
            for engine in 0..engines {
                let findings: Vec<&Finding> = self.findings(measure).filter(|f| f.engine == engine).collect();
                let line = |f: &&Finding| Some((place(f.cell), f.expect?.line() / shown.divisor));
                let mut ideal: Vec<(f64, f64)> = findings.iter().filter_map(line).collect();
                ideal.sort_by(|a, b| a.0.total_cmp(&b.0));
                if ideal.len() > 1 && !ideals.contains(&ideal) {
                    ideals.push(ideal);
                }
                let colour = number * engines + engine;
                let shift = (colour as f64 - (measures.len() * engines - 1) as f64 / 2.0) * BESIDE;
                let name = series_name(measures, measure, &self.recording.engines[engine].name, engines);
                layers.extend(points(&findings, colour, name, shift, &place, &shown));
            }
        }
        let ideals = ideals.into_iter().enumerate().map(|(index, points)| {
            let name = if index == 0 { "expected".to_owned() } else { String::new() };
            Layer { name, colour: 0, shape: Shape::Ideal, points, shift: 0.0 }
        });
        let layers = ideals.collect::<Vec<_>>().into_iter().chain(layers).collect();
        Chart {
            title,
            x_label: self.axis_of(varied),
            y_label: shown.label(&title_of),
            names: if numbers.is_some() {
                Vec::new()
            } else {
                values.iter().map(|&v| v.to_owned()).collect()
            },
            layers,
            legend: true,
            ..Chart::default()
        }
    }

    /// The name of what varies, with its unit where the name is that of a limit.
    fn axis_of(&self, varied: &str) -> String {
        match varied {
            "cpus" => "limit (cores)".to_owned(),
            other => other.to_owned(),
        }
    }

    fn bars(&self, title: Option<String>, measures: &[String]) -> Vec<Bars> {
        let engines: Vec<String> = self.recording.engines.iter().map(|engine| engine.name.clone()).collect();
        let bar = |measure: &str, engine: usize, cell: usize, shown: &Quantified| {
            let finding = self.outcome.find(engine, cell, measure)?;
            let summary = finding.summary?;
            let error = summary.confidence.unwrap_or(0.0) / shown.divisor;
            Some(Bar {
                value: summary.mean / shown.divisor,
                error: (error, error),
                ideal: finding.expect.map(|expect| expect.line() / shown.divisor),
            })
        };
        let row = |measure: &str, cell: usize, shown: &Quantified| {
            (0..engines.len()).map(|engine| bar(measure, engine, cell, shown)).collect()
        };
        let cells = &self.recording.cells;
        if cells.len() == 1 {
            let (shown, title_of) = self.quantified(measures);
            let groups = measures.iter().map(|measure| (short(measure), row(measure, 0, &shown))).collect();
            let title = title.unwrap_or_else(|| capital(&title_of));
            return vec![Bars { title, y_label: shown.label(&title_of), series: engines, groups }];
        }
        let of = |measure: &String| {
            let (shown, title_of) = self.quantified(std::slice::from_ref(measure));
            let groups =
                (0..cells.len()).map(|cell| (values_of(&cells[cell]), row(measure, cell, &shown))).collect();
            let title = match &title {
                Some(title) if measures.len() == 1 => title.clone(),
                Some(title) => format!("{title}: {measure}"),
                None => capital(measure),
            };
            Bars { title, y_label: shown.label(&title_of), series: engines.clone(), groups }
        };
        measures.iter().map(of).collect()
    }

    fn distribution(&self, title: String, measures: &[String]) -> Chart {
        let (shown, title_of) = self.quantified(measures);
        let engines = self.recording.engines.len();
        let mut layers = Vec::new();
        for measure in measures {
            for finding in self.findings(measure).filter(|finding| !finding.values.is_empty()) {
                let mut sorted: Vec<f64> = finding.values.iter().map(|value| value / shown.divisor).collect();
                sorted.sort_by(f64::total_cmp);
                let part = |index: usize| index as f64 / sorted.len() as f64 * 100.0;
                let mut points = vec![(sorted[0], 0.0)];
                points.extend(sorted.iter().enumerate().map(|(index, value)| (*value, part(index + 1))));
                let mut name =
                    series_name(measures, measure, &self.recording.engines[finding.engine].name, engines);
                let setting = label(&self.recording.cells[finding.cell]);
                if !setting.is_empty() {
                    name = format!("{name}, {setting}");
                }
                let median = quantile(&sorted, 0.5);
                name = format!("{name} (median {median:.1} {})", shown.unit);
                layers.push(Layer { name, colour: layers.len(), shape: Shape::Step, points, shift: 0.0 });
            }
        }
        Chart {
            title,
            x_label: shown.label(&title_of),
            y_label: "runs at or below (%)".to_owned(),
            layers,
            y_at_least: 100.0,
            legend: true,
            ..Chart::default()
        }
    }
}

/// Pixels between series that have values at one place.
const BESIDE: f64 = 10.0;

fn points(
    findings: &[&Finding],
    colour: usize,
    name: String,
    shift: f64,
    place: &impl Fn(usize) -> f64,
    shown: &Quantified,
) -> [Layer; 2] {
    let dots = findings.iter().flat_map(|finding| {
        let x = place(finding.cell);
        finding.values.iter().map(move |value| (x, value / shown.divisor))
    });
    let dots = Layer { name: String::new(), colour, shape: Shape::Dots, points: dots.collect(), shift };
    let summaries: Vec<_> = findings.iter().filter_map(|f| Some((place(f.cell), f.summary?))).collect();
    let errors = summaries.iter().map(|(_, summary)| summary.confidence.unwrap_or(0.0) / shown.divisor);
    let means = Layer {
        name,
        colour,
        shape: Shape::Errors(errors.collect()),
        points: summaries.iter().map(|(x, summary)| (*x, summary.mean / shown.divisor)).collect(),
        shift,
    };
    [dots, means]
}

/// What tells a series apart: the measure, the engine, or both.
fn series_name(measures: &[String], measure: &str, engine: &str, engines: usize) -> String {
    match (measures.len(), engines) {
        (1, _) => engine.to_owned(),
        (_, 1) => measure.to_owned(),
        _ => format!("{measure} on {engine}"),
    }
}

/// `0.5, 64m`: the values of a setting without their names.
fn values_of(cell: &indexmap::IndexMap<String, String>) -> String {
    cell.values().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A measure's label without what all labels of a group of bars share.
fn short(label: &str) -> String {
    label
        .split_once('.')
        .map_or(
            label,
            |(container, metric)| {
                if Metric::of_word(metric).is_some() { container } else { label }
            },
        )
        .to_owned()
}

fn changes(run: &Run) -> Vec<(f64, String)> {
    run.changes.iter().map(|change| (change.at, change.what.clone())).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Over how much time a rate is taken when it is drawn: the scheduler hands time out in periods of 0.1 s.
const SMOOTH: f64 = 0.45;

/// Samples over time: name, colour, whether dashed, samples. Limits are drawn where there are some.
#[must_use]
pub fn time_chart(
    title: String,
    series: Series,
    tracks: &[(String, usize, bool, &Samples)],
    events: Vec<(f64, String)>,
) -> Chart {
    let (column, kind, limit) = source(series);
    let mut lines: Vec<(usize, Vec<(f64, f64)>)> = Vec::new();
    let mut limits: Vec<Vec<(f64, f64)>> = Vec::new();
    for (index, (_, _, dashed, samples)) in tracks.iter().enumerate() {
        lines.push((index, curve(samples, column, kind)));
        let values = limit.and_then(|limit| samples.column(limit)).filter(|_| !dashed);
        if let Some(values) = values.filter(|values| values.iter().any(|value| *value > 0.0)) {
            let shown =
                samples.at.iter().copied().zip(values.iter().map(|v| if *v > 0.0 { *v } else { f64::NAN }));
            limits.push(shown.collect());
        }
    }
    let highest = lines.iter().flat_map(|(_, points)| points).chain(limits.iter().flatten()).map(|(_, y)| *y);
    let highest = highest.filter(|y| y.is_finite()).fold(0.0, f64::max);
    let shown = Quantified::of(series.unit(), highest);
    let scaled =
        |points: &[(f64, f64)]| points.iter().map(|(x, y)| (*x, y / shown.divisor)).collect::<Vec<_>>();
    let mut layers: Vec<Layer> = Vec::new();
    for (index, points) in limits.iter().enumerate() {
        let name = if index == 0 { "limit".to_owned() } else { String::new() };
        layers.push(Layer { name, colour: 0, shape: Shape::IdealStep, points: scaled(points), shift: 0.0 });
    }
    for (index, points) in &lines {
        let (name, colour, dashed, _) = &tracks[*index];
        let shape = if *dashed { Shape::Dashed } else { Shape::Line };
        layers.push(Layer { name: name.clone(), colour: *colour, shape, points: scaled(points), shift: 0.0 });
    }
    Chart {
        title,
        x_label: "time (s)".to_owned(),
        y_label: shown.label(series.title()),
        layers,
        events,
        y_at_least: highest / shown.divisor,
        exact: true,
        legend: true,
        ..Chart::default()
    }
}

/// How a column becomes a curve.
#[derive(Debug, Clone, Copy)]
enum Curve {
    /// As it is.
    Gauge,
    /// Growth a second, times a factor.
    Rate(f64),
    /// Growth of one column as a part of the growth of another.
    Part(Column),
}

/// The column of a series, how it is drawn, and its limit.
fn source(series: Series) -> (Column, Curve, Option<Column>) {
    match series {
        Series::Cpu => (Column::CpuNs, Curve::Rate(1e-9), Some(Column::CpuLimit)),
        Series::Throttled => (Column::ThrottledPeriods, Curve::Part(Column::Periods), None),
        Series::Memory => (Column::Memory, Curve::Gauge, Some(Column::MemoryLimit)),
        Series::Swap => (Column::Swap, Curve::Gauge, None),
        Series::OomKills => (Column::OomKills, Curve::Gauge, None),
        Series::Pids => (Column::Pids, Curve::Gauge, Some(Column::PidsLimit)),
        Series::IoRead => (Column::IoRead, Curve::Rate(1.0), None),
        Series::IoWrite => (Column::IoWrite, Curve::Rate(1.0), None),
        Series::NetReceived => (Column::NetReceived, Curve::Rate(1.0), None),
        Series::NetSent => (Column::NetSent, Curve::Rate(1.0), None),
        Series::PsiCpu => (Column::PsiCpuUs, Curve::Rate(1e-6), None),
        Series::PsiMemory => (Column::PsiMemoryUs, Curve::Rate(1e-6), None),
        Series::PsiIo => (Column::PsiIoUs, Curve::Rate(1e-6), None),
    }
}

fn curve(samples: &Samples, column: Column, kind: Curve) -> Vec<(f64, f64)> {
    let Some(values) = samples.column(column) else { return Vec::new() };
    let at = &samples.at;
    if matches!(kind, Curve::Gauge) {
        return at.iter().copied().zip(values.iter().copied()).collect();
    }
    let whole = match kind {
        Curve::Part(other) => samples.column(other),
        _ => None,
    };
    let mut points = Vec::new();
    let mut first = 0;
    for last in 1..at.len() {
        while first + 1 < last && at[last] - at[first + 1] >= SMOOTH {
            first += 1;
        }
        let (grown, passed) = (values[last] - values[first], at[last] - at[first]);
        let value = match (kind, whole) {
            (Curve::Rate(factor), _) => grown / passed * factor,
            (_, Some(whole)) => grown / (whole[last] - whole[first]).max(1.0),
            _ => continue,
        };
        points.push(((at[first] + at[last]) / 2.0, value));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half_a_core() -> Samples {
        let mut samples = Samples::default();
        for tenth in 0..50_u32 {
            let at = f64::from(tenth) / 10.0;
            samples.push(at, &[(Column::CpuNs, at * 5e8), (Column::CpuLimit, 0.5), (Column::Memory, 1e6)]);
        }
        samples
    }

    #[test]
    fn rates_are_drawn_with_their_limit() {
        let samples = half_a_core();
        let chart =
            time_chart("t".to_owned(), Series::Cpu, &[("web".to_owned(), 0, false, &samples)], Vec::new());
        assert_eq!(chart.layers.len(), 2);
        assert_eq!(chart.layers[0].shape, Shape::IdealStep);
        let line = &chart.layers[1].points;
        assert!(line.len() > 40 && line.iter().all(|(_, y)| (y - 0.5).abs() < 1e-6), "{line:?}");
        assert_eq!(chart.y_label, "processor time (cores)");
    }

    #[test]
    fn what_a_machine_does_not_count_is_an_empty_curve() {
        let samples = half_a_core();
        let chart =
            time_chart("t".to_owned(), Series::PsiCpu, &[("web".to_owned(), 0, false, &samples)], Vec::new());
        assert!(chart.layers[0].points.is_empty());
        assert!(chart.draw(Size::PANEL).contains("<svg"));
    }
}
