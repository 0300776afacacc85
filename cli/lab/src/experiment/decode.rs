//! From trees to experiments.

use std::path::Path as FilePath;
use std::time::Duration;

use berth_yaml::{Fault, Node, Path, Sources, Value, nearest, parse};
use indexmap::IndexMap;

use super::cells::{self, Values};
use super::fields::{Fields, number, scalar, wrong_kind};
use super::{
    Action, Cell, Change, Container, Expectation, Experiment, Limits, Measure, Metric, Overrides, Plot,
    PlotKind, Quantity, Scenario, Series, Throttle, Tolerance, Unit, quantity,
};
use crate::error::{Error, Result};

/// The highest rate of sampling, in samples a second: a cgroup's files cost the kernel time to make up.
const MAX_RATE: f64 = 10.0;

/// Loads an experiment's file.
///
/// # Errors
/// If it cannot be read, or says something that cannot be: with file, line, field and a remedy.
pub fn load(file: &FilePath, overrides: &Overrides) -> Result<Experiment> {
    let text =
        std::fs::read_to_string(file).map_err(|source| Error::Read { path: file.to_owned(), source })?;
    let mut sources = Sources::default();
    let index = sources.add(file);
    experiment(&text, index, overrides).map_err(|fault| sources.problem(fault).into())
}

fn experiment(text: &str, file: u16, overrides: &Overrides) -> Result<Experiment, Fault> {
    let root = parse(text, file)?.into_iter().next().map(|document| document.root).unwrap_or_default();
    let fields = Fields::of(&root, &Path::root())?;
    let name = fields.text("name")?.ok_or_else(|| fields.fault("name", "\"name\" is missing"))?;
    let description = fields.text("description")?.unwrap_or_default();
    let written = fields.span("duration", Duration::ZERO)?;
    let duration = overrides.duration.or(written).unwrap_or(Duration::from_secs(10));
    if duration.is_zero() {
        return Err(fields.fault("duration", "must be longer than nothing"));
    }
    let repetitions = fields.whole("repetitions")?.unwrap_or(3);
    let repetitions = u32::try_from(repetitions).ok().filter(|times| (1..=10_000).contains(times));
    let repetitions = repetitions.ok_or_else(|| fields.fault("repetitions", "must be from 1 to 10000"))?;
    let rate = fields.number("rate")?.unwrap_or(MAX_RATE);
    if !(0.1..=MAX_RATE).contains(&rate) {
        return Err(fields.fault("rate", format!("must be from 0.1 to {MAX_RATE} samples a second")));
    }
    let settle = fields.span("settle", duration)?.unwrap_or(Duration::from_secs(1)).min(duration / 4);
    let image = fields.text("image")?;
    let vary = vary(&fields, overrides)?;

    let mut builtin = Values::new();
    builtin.insert("duration".to_owned(), Value::Float(duration.as_secs_f64()));
    for (name, value) in &overrides.variables {
        if !vary.contains_key(name) {
            builtin.insert(name.clone(), Value::Text(value.clone()));
        }
    }
    let image = overrides.image.clone().or(image);
    if let Some(image) = &image {
        builtin.insert("image".to_owned(), Value::Text(image.clone()));
    }
    let parts: Vec<(&'static str, Option<&Node>)> =
        ["containers", "changes", "measures"].into_iter().map(|name| (name, fields.get(name))).collect();
    let plots = fields.get("plots");
    fields.finish()?;
    if parts[0].1.is_none() {
        return Err(fields.fault("containers", "\"containers\" is missing"));
    }
    let mut decoded = Vec::new();
    for values in cells::combinations(&vary) {
        let mut all = builtin.clone();
        all.extend(values.clone());
        let context = Context { duration, image: image.clone() };
        let scenario = context.scenario(&parts, &all)?;
        let values = values.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        decoded.push(Cell { values, scenario });
    }
    let varied: Vec<String> = vary.keys().cloned().collect();
    let plots = match plots {
        Some(node) => plot_list(node, &decoded[0].scenario.measures, &varied)?,
        None => Vec::new(),
    };
    Ok(Experiment {
        name,
        description,
        duration,
        repetitions: overrides.repetitions.unwrap_or(repetitions),
        rate,
        settle,
        cells: decoded,
        varied,
        plots,
        text: text.to_owned(),
    })
}

fn vary(fields: &Fields<'_>, overrides: &Overrides) -> Result<IndexMap<String, Vec<Value>>, Fault> {
    let Some(node) = fields.get("vary") else { return Ok(IndexMap::new()) };
    let path = Path::root().join("vary");
    let map =
        node.as_map().ok_or_else(|| wrong_kind(node, &path, "a mapping of names to lists of values"))?;
    let mut vary = IndexMap::new();
    for (name, node) in map {
        let path = path.join(name);
        let written = node.as_list().filter(|list| !list.is_empty());
        let written = written.ok_or_else(|| wrong_kind(node, &path, "a list of values"))?;
        if let Some(item) = written.iter().find(|item| scalar(&item.value).is_none()) {
            return Err(wrong_kind(item, &path, "a list of numbers or texts"));
        }
        let values = match overrides.variables.get(name) {
            Some(value) => vec![Value::Text(value.clone())],
            None => written.iter().map(|item| item.value.clone()).collect(),
        };
        vary.insert(name.clone(), values);
    }
    Ok(vary)
}

/// What values of fields are relative to.
struct Context {
    duration: Duration,
    image: Option<String>,
}

impl Context {
    fn scenario(&self, parts: &[(&'static str, Option<&Node>)], values: &Values) -> Result<Scenario, Fault> {
        let part = |index: usize| -> Result<Option<(Node, Path)>, Fault> {
            let (name, node) = parts[index];
            let path = Path::root().join(name);
            node.map(|node| Ok((cells::fill(node, values, &path)?, path))).transpose()
        };
        let mut containers = Vec::new();
        if let Some((node, path)) = part(0)? {
            let map = node.as_map().filter(|map| !map.is_empty());
            let map = map.ok_or_else(|| wrong_kind(&node, &path, "a mapping of names to containers"))?;
            for (name, node) in map {
                containers.push(self.container(name, node, &path.join(name))?);
            }
        }
        let mut changes = items(part(1)?, |node, path| self.change(node, path, &containers))?;
        changes.sort_by_key(|change| change.at);
        let measures = items(part(2)?, |node, path| self.measure(node, path, &containers))?;
        Ok(Scenario { containers, changes, measures })
    }

    fn container(&self, name: &str, node: &Node, path: &Path) -> Result<Container, Fault> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(valid) {
            let message = format!("{name:?} is no name: letters, digits, _ and - are allowed");
            return Err(Fault::new(node.mark, path, message));
        }
        let fields = Fields::of(node, path)?;
        let image = fields.text("image")?.or_else(|| self.image.clone()).ok_or_else(|| {
            fields.fault("image", "\"image\" is missing").hint("one for all containers can stand at the top")
        })?;
        let start = fields.span("start", self.duration)?.unwrap_or_default();
        let stop = fields.span("stop", self.duration)?;
        if stop.is_some_and(|stop| stop <= start) {
            return Err(fields.fault("stop", "must be later than the start"));
        }
        let container = Container {
            name: name.to_owned(),
            image,
            command: fields.texts("command")?,
            environment: fields.texts("environment")?,
            start,
            stop,
            network: fields.text("network")?.unwrap_or_else(|| "none".to_owned()),
            tmpfs: fields.texts("tmpfs")?,
            limits: limits(&fields)?,
        };
        fields.finish()?;
        Ok(container)
    }

    fn change(&self, node: &Node, path: &Path, containers: &[Container]) -> Result<Change, Fault> {
        let fields = Fields::of(node, path)?;
        let at = fields.span("at", self.duration)?;
        let at = at.ok_or_else(|| fields.fault("at", "\"at\" is missing"))?;
        let kinds = ["update", "pause", "unpause", "kill"];
        let mut said = Vec::new();
        for kind in kinds {
            said.extend(fields.text(kind)?.map(|container| (kind, container)));
        }
        let [(kind, container)] = said.as_slice() else {
            let message = "says what happens by exactly one of update, pause, unpause, kill";
            return Err(Fault::new(node.mark, path, message));
        };
        known_container(container, containers)
            .map_err(|(message, hint)| hinted(fields.fault(kind, message), hint))?;
        let action = match *kind {
            "update" => {
                let limits = limits(&fields)?;
                if limits == Limits::default() {
                    return Err(fields
                        .fault("update", "changes no limit")
                        .hint("add one, such as cpus: 1.5"));
                }
                Action::Update(Box::new(limits))
            }
            "pause" => Action::Pause,
            "unpause" => Action::Unpause,
            _ => Action::Kill,
        };
        fields.finish()?;
        Ok(Change { at, container: container.clone(), action })
    }

    fn measure(&self, node: &Node, path: &Path, containers: &[Container]) -> Result<Measure, Fault> {
        let fields = Fields::of(node, path)?;
        let quantity = |name: &'static str| -> Result<Option<Quantity>, Fault> {
            let Some(text) = fields.text(name)? else { return Ok(None) };
            quantity_of(&text, containers)
                .map(Some)
                .map_err(|(message, hint)| hinted(fields.fault(name, message), hint))
        };
        let of = quantity("of")?.ok_or_else(|| fields.fault("of", "\"of\" is missing"))?;
        let over = quantity("over")?;
        let during = match fields.texts("during")?.as_slice() {
            [] => None,
            [from, to] => {
                let span = |text: &str| quantity::span(text, self.duration);
                let window = span(from).zip(span(to)).filter(|(from, to)| from < to);
                Some(window.ok_or_else(|| fields.fault("during", "must be two times, the earlier first"))?)
            }
            _ => return Err(fields.fault("during", "must be two times, such as [20%, 45%]")),
        };
        let text = |quantity: &Quantity| format!("{}.{}", quantity.container, quantity.metric.word());
        let label = fields.text("label")?.unwrap_or_else(|| match &over {
            Some(over) => format!("{} / {}", text(&of), text(over)),
            None => text(&of),
        });
        let unit = if over.is_some() { Unit::Ratio } else { of.metric.unit() };
        let expect = expectation(&fields, unit)?;
        fields.finish()?;
        Ok(Measure { label, of, over, during, expect })
    }
}

/// The items of a list.
fn items<T>(
    part: Option<(Node, Path)>,
    decode: impl Fn(&Node, &Path) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let Some((node, path)) = part else { return Ok(Vec::new()) };
    let list = node.as_list().ok_or_else(|| wrong_kind(&node, &path, "a list"))?;
    list.iter().enumerate().map(|(index, item)| decode(item, &path.join(index.to_string()))).collect()
}

fn hinted(fault: Fault, hint: Option<String>) -> Fault {
    match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

/// A message and a remedy.
type Said = (String, Option<String>);

fn known_container(name: &str, containers: &[Container]) -> Result<(), Said> {
    if containers.iter().any(|container| container.name == name) {
        return Ok(());
    }
    let names = || containers.iter().map(|container| container.name.as_str());
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("the experiment has {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err((format!("there is no container {name:?}"), Some(hint)))
}

fn quantity_of(text: &str, containers: &[Container]) -> Result<Quantity, Said> {
    let form = || (format!("{text:?} must be CONTAINER.METRIC, such as web.cpu"), None);
    let (container, word) = text.split_once('.').ok_or_else(form)?;
    known_container(container, containers)?;
    let metric = Metric::of_word(word).ok_or_else(|| {
        let words = || Metric::ALL.iter().map(|metric| metric.word());
        let hint = match nearest(word, words()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known are {}", words().collect::<Vec<_>>().join(", ")),
        };
        (format!("there is no metric {word:?}"), Some(hint))
    })?;
    Ok(Quantity { container: container.to_owned(), metric })
}

fn limits(fields: &Fields<'_>) -> Result<Limits, Fault> {
    let throttle = |name: &'static str, in_bytes: bool| -> Result<Option<Throttle>, Fault> {
        let Some(text) = fields.text(name)? else { return Ok(None) };
        let parsed = text.rsplit_once(':').and_then(|(device, rate)| {
            let rate = if in_bytes { quantity::parse_bytes(rate) } else { rate.parse().ok() };
            Some(Throttle { device: device.to_owned(), rate: rate? })
        });
        parsed.map(Some).ok_or_else(|| fields.fault(name, "must be DEVICE:RATE, such as /dev/sda:1m"))
    };
    let cpus = fields.number("cpus")?;
    if cpus.is_some_and(|cpus| cpus < 0.01) {
        return Err(fields.fault("cpus", "must be at least 0.01").hint("the kernel knows no smaller quota"));
    }
    let memory_swap = match fields.text("memory_swap")?.as_deref() {
        None => None,
        Some("-1") => Some(-1),
        Some(text) => {
            let bytes = quantity::parse_bytes(text).and_then(|bytes| i64::try_from(bytes).ok());
            Some(bytes.ok_or_else(|| {
                fields.fault("memory_swap", "must be a number of bytes, such as 128m, or -1")
            })?)
        }
    };
    Ok(Limits {
        cpus,
        cpu_shares: fields.whole("cpu_shares")?,
        cpuset: fields.text("cpuset")?,
        memory: fields.bytes("memory")?,
        memory_swap,
        memory_reservation: fields.bytes("memory_reservation")?,
        pids: fields.whole("pids")?,
        read_bps: throttle("read_bps", true)?,
        write_bps: throttle("write_bps", true)?,
        read_iops: throttle("read_iops", false)?,
        write_iops: throttle("write_iops", false)?,
    })
}

fn expectation(fields: &Fields<'_>, unit: Unit) -> Result<Option<Expectation>, Fault> {
    let value = |name: &'static str| -> Result<Option<f64>, Fault> {
        let Some(node) = fields.get(name) else { return Ok(None) };
        let found = number(&node.value).or_else(|| match unit {
            Unit::Bytes | Unit::BytesPerSecond => {
                quantity::parse_bytes(&scalar(&node.value)?).map(|b| b as f64)
            }
            Unit::Share => percent(&scalar(&node.value)?),
            _ => None,
        });
        found.map(Some).ok_or_else(|| wrong_kind(node, &fields.path_of(name), "a number"))
    };
    let (equals, least, most) = (value("expect")?, value("at_least")?, value("at_most")?);
    let within = fields.text("within")?;
    match (equals, least, most, within) {
        (None, None, None, None) => Ok(None),
        (Some(value), None, None, within) => {
            let within = match within.as_deref() {
                None => Tolerance::Absolute(0.0),
                Some(text) => match (percent(text), text.parse().ok(), quantity::parse_bytes(text)) {
                    (Some(part), ..) => Tolerance::Relative(part),
                    (None, Some(by), _) => Tolerance::Absolute(by),
                    (None, None, Some(bytes)) => Tolerance::Absolute(bytes as f64),
                    _ => return Err(fields.fault("within", "must be a part, such as 2%, or a number")),
                },
            };
            Ok(Some(Expectation::Equals { value, within }))
        }
        (None, Some(least), None, None) => Ok(Some(Expectation::AtLeast(least))),
        (None, None, Some(most), None) => Ok(Some(Expectation::AtMost(most))),
        (None, .., Some(_)) => Err(fields.fault("within", "belongs to \"expect\"")),
        _ => Err(fields.fault("expect", "only one of expect, at_least and at_most can be said")),
    }
}

fn percent(text: &str) -> Option<f64> {
    text.trim().strip_suffix('%')?.trim().parse::<f64>().ok().map(|percent| percent / 100.0)
}

fn plot_list(node: &Node, measures: &[Measure], varied: &[String]) -> Result<Vec<Plot>, Fault> {
    let path = Path::root().join("plots");
    items(Some((node.clone(), path)), |node, path| plot(node, path, measures, varied))
}

fn plot(node: &Node, path: &Path, measures: &[Measure], varied: &[String]) -> Result<Plot, Fault> {
    let fields = Fields::of(node, path)?;
    let known = |field: &str, labels: Vec<String>| -> Result<Vec<String>, Fault> {
        let all = || measures.iter().map(|measure| measure.label.as_str());
        match labels.iter().find(|label| !all().any(|known| known == label.as_str())) {
            None => Ok(labels),
            Some(unknown) => {
                let fault = fields.fault(field, format!("there is no measure {unknown:?}"));
                let labels = all().map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ");
                Err(match nearest(unknown, all()) {
                    Some(near) => fault.hint(format!("did you mean {near:?}?")),
                    None => fault.hint(format!("measures are {labels}")),
                })
            }
        }
    };
    let title = fields.text("title")?;
    let time = fields.text("time")?;
    let against = fields.text("against")?;
    let listed = fields.texts("measures")?;
    let bars = fields.texts("bars")?;
    let distribution = fields.texts("distribution")?;
    fields.finish()?;
    let kind = match (time, against) {
        (Some(word), None) => {
            let series = Series::of_word(&word).ok_or_else(|| {
                let words = || Series::ALL.iter().map(|series| series.word());
                let fault =
                    fields.fault("time", format!("there is nothing called {word:?} to draw over time"));
                match nearest(&word, words()) {
                    Some(near) => fault.hint(format!("did you mean {near:?}?")),
                    None => fault.hint(format!("known are {}", words().collect::<Vec<_>>().join(", "))),
                }
            })?;
            PlotKind::Time(series)
        }
        (None, Some(name)) => {
            if !varied.contains(&name) {
                return Err(fields.fault("against", format!("{name:?} is no name of vary")));
            }
            let measures = known("measures", listed)?;
            if measures.is_empty() {
                return Err(fields
                    .fault("against", "needs the measures to draw")
                    .hint("add measures: [LABEL]"));
            }
            PlotKind::Against { name, measures }
        }
        (None, None) if !bars.is_empty() => PlotKind::Bars(known("bars", bars)?),
        (None, None) if !distribution.is_empty() => {
            PlotKind::Distribution(known("distribution", distribution)?)
        }
        _ => {
            let message = "is one of time: SERIES, against: NAME, bars: [LABEL], distribution: [LABEL]";
            return Err(Fault::new(node.mark, path, message));
        }
    };
    Ok(Plot { title, kind })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
