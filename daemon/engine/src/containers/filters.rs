//! Filters of container lists; the values that several lists share.

use berth_api::Filters;
use jiff::Timestamp;
use regex::Regex;

use super::{Container, Definition, Status, ports};
use crate::engine::Engine;
use crate::error::{EngineError, Result};

const KNOWN: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// What a list is to show.
pub(crate) struct ContainerFilter {
    filters: Filters,
    names: Vec<Regex>,
    exited: Vec<i32>,
    /// Image ids and names.
    ancestors: Vec<String>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    networks: Vec<String>,
}

/// A single `true` or `false`.
pub(crate) fn boolean(filters: &Filters, key: &str) -> Result<Option<bool>> {
    let invalid = |values: &[String]| EngineError::invalid(format!("invalid filter '{key}={values:?}'"));
    match filters.get(key) {
        [] => Ok(None),
        [value] => match value.as_str() {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Some(false)),
            _ => Err(invalid(filters.get(key))),
        },
        values => Err(invalid(values)),
    }
}

/// The single point in time of `until`.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    match filters.get("until") {
        [] => Ok(None),
        [value] => berth_api::when::parse(value, Timestamp::now())
            .map_err(|error| EngineError::invalid(error.to_string())),
        _ => Err(EngineError::invalid("more than one until filter specified")),
    }
}

impl ContainerFilter {
    pub(crate) fn new(engine: &Engine, filters: &Filters) -> Result<Self> {
        if let Some(key) = filters.unknown_key(&KNOWN) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        statuses(filters)?;
        port_filters(filters)?;
        boolean(filters, "is-task")?;
        let names = filters.get("name").iter().map(|text| {
            Regex::new(text)
                .map_err(|error| EngineError::invalid(format!("invalid filter 'name={text}': {error}")))
        });
        let exited = filters.get("exited").iter().map(|text| {
            text.parse().map_err(|_| EngineError::invalid(format!("invalid filter 'exited={text}'")))
        });
        for text in filters.get("health") {
            if !["none", "starting", "healthy", "unhealthy"].contains(&text.as_str()) {
                return Err(EngineError::invalid(format!("invalid filter 'health={text}'")));
            }
        }
        let moment = |key: &str| -> Result<Option<Timestamp>> {
            let found =
                filters.get(key).iter().map(|name| Ok(engine.containers.find(name)?.definition().created));
            Ok(found.collect::<Result<Vec<_>>>()?.into_iter().next())
        };
        let mut ancestors = Vec::new();
        for name in filters.get("ancestor") {
            ancestors.push(name.clone());
            if let Ok(image) = engine.store.images().resolve(name) {
                ancestors.push(image.id.to_string());
                ancestors.extend(engine.descendants(&image.id));
            }
        }
        let mut networks = filters.get("network").to_vec();
        networks.extend(
            filters.get("network").iter().filter_map(|name| Some(engine.network.network(name).ok()?.name)),
        );
        Ok(Self {
            names: names.collect::<Result<_>>()?,
            exited: exited.collect::<Result<_>>()?,
            ancestors,
            before: moment("before")?,
            since: moment("since")?,
            networks,
            filters: filters.clone(),
        })
    }

    /// Whether the filters themselves ask for stopped containers as well.
    pub(crate) fn wants_stopped(&self) -> bool {
        ["status", "exited", "before", "since"].iter().any(|key| !self.filters.get(key).is_empty())
    }

    pub(crate) fn matches(&self, container: &Container) -> Result<bool> {
        let (definition, status) = (container.definition(), container.status());
        Ok(self.matches_identity(&definition)
            && self.matches_state(&status)
            && self.matches_ports(&definition, &status)?)
    }

    fn one_of(&self, key: &str, test: impl Fn(&String) -> bool) -> bool {
        let wanted = self.filters.get(key);
        wanted.is_empty() || wanted.iter().any(test)
    }

    fn matches_identity(&self, definition: &Definition) -> bool {
        let slashed = format!("/{}", definition.name);
        let named = self.names.is_empty()
            || self.names.iter().any(|name| name.is_match(&definition.name) || name.is_match(&slashed));
        let image = self.ancestors.is_empty()
            || self.ancestors.contains(&definition.image_id)
            || self.ancestors.contains(&definition.config.image);
        named
            && image
            && self.one_of("id", |id| definition.id.starts_with(id.as_str()))
            && self.filters.matches_labels(&definition.config.labels)
            && self.before.is_none_or(|before| definition.created < before)
            && self.since.is_none_or(|since| definition.created > since)
            && (self.networks.is_empty()
                || self.networks.iter().any(|name| definition.networks.contains_key(name)))
            && self.one_of("volume", |volume| {
                definition.mounts.iter().any(|mount| mount.source == *volume || mount.target == *volume)
            })
            && self.one_of("is-task", |value| {
                !matches!(value.as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE")
            })
            && self.one_of("isolation", |value| value.is_empty() || value == "default")
    }

    fn matches_state(&self, status: &Status) -> bool {
        let ended = !status.phase.is_running() && status.ends > 0;
        self.one_of("status", |wanted| wanted == status.phase.as_str())
            && (self.exited.is_empty() || ended && self.exited.contains(&status.exit_code))
            && self.one_of("health", |wanted| {
                wanted == status.health.as_ref().map_or("none", |health| &health.status)
            })
    }

    fn matches_ports(&self, definition: &Definition, status: &Status) -> Result<bool> {
        let any = |key: &str, test: &dyn Fn(&str) -> Result<bool>| -> Result<bool> {
            let wanted = self.filters.get(key);
            let mut found = wanted.is_empty();
            for text in wanted {
                found |= test(text)?;
            }
            Ok(found)
        };
        let published = |text: &str| {
            status.ports().try_fold(false, |found, port| Ok(found | ports::is_published(port, text)?))
        };
        let exposed = |text: &str| {
            let mut ports = definition.config.exposed_ports.keys();
            ports.try_fold(false, |found, port| Ok(found | ports::is_exposed(port, text)?))
        };
        Ok(any("publish", &published)? && any("expose", &exposed)?)
    }
}

/// A port that cannot be read is a mistake whether or not any container has ports.
fn port_filters(filters: &Filters) -> Result<()> {
    for key in ["publish", "expose"] {
        for text in filters.get(key) {
            ports::check_filter(text)
                .map_err(|error| error.context(format!("error while looking up for {key} {text}")))?;
        }
    }
    Ok(())
}

fn statuses(filters: &Filters) -> Result<()> {
    const NAMES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
    match filters.get("status").iter().find(|status| !NAMES.contains(&status.as_str())) {
        None => Ok(()),
        Some(bad) => Err(EngineError::invalid(format!(
            "invalid filter 'status={bad}': invalid value for state ({bad}): must be one of {}",
            NAMES.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Phase;
    use super::*;

    fn parse(text: &str) -> Filters {
        Filters::parse(text).unwrap()
    }

    #[test]
    fn booleans_are_single() {
        assert_eq!(boolean(&parse(r#"{"dangling":["true"]}"#), "dangling").unwrap(), Some(true));
        assert_eq!(boolean(&parse("{}"), "dangling").unwrap(), None);
        assert!(boolean(&parse(r#"{"dangling":["true","false"]}"#), "dangling").is_err());
        assert!(boolean(&parse(r#"{"dangling":["x"]}"#), "dangling").is_err());
    }

    #[test]
    fn bad_states_list_the_good_ones() {
        assert_eq!(
            statuses(&parse(r#"{"status":["bogus"]}"#)).unwrap_err().message(),
            "invalid filter 'status=bogus': invalid value for state (bogus): must be one of created, running, paused, \
             restarting, removing, exited, dead"
        );
    }

    #[test]
    fn points_in_time() {
        assert!(until(&parse(r#"{"until":["10m"]}"#)).unwrap().is_some());
        assert!(until(&parse(r#"{"until":["10m","5m"]}"#)).is_err());
    }

    fn filter(text: &str) -> ContainerFilter {
        let filters = parse(text);
        ContainerFilter {
            names: filters.get("name").iter().map(|name| Regex::new(name).unwrap()).collect(),
            exited: filters.get("exited").iter().map(|code| code.parse().unwrap()).collect(),
            ancestors: filters.get("ancestor").to_vec(),
            before: None,
            since: None,
            networks: filters.get("network").to_vec(),
            filters,
        }
    }

    #[test]
    fn containers_pass_or_not() {
        let json = r#"{"Labels":{"a":"1"},"Image":"busybox","ExposedPorts":{"80/tcp":{}}}"#;
        let definition = Definition {
            id: "abcdef".into(),
            name: "web-1".into(),
            config: serde_json::from_str(json).unwrap(),
            networks: [("bridge".to_owned(), Default::default())].into(),
            ..Definition::default()
        };
        let status = Status { phase: Phase::Exited, exit_code: 3, ends: 1, ..Status::default() };
        let container = Container::new(definition, status);
        let passes = |text: &str| filter(text).matches(&container).unwrap();
        for text in [
            "{}",
            r#"{"name":["^/web"]}"#,
            r#"{"name":["web"]}"#,
            r#"{"id":["abc"]}"#,
            r#"{"label":["a","a=1"]}"#,
            r#"{"status":["exited","running"]}"#,
            r#"{"exited":["3"]}"#,
            r#"{"ancestor":["busybox"]}"#,
            r#"{"network":["bridge"]}"#,
            r#"{"expose":["80"]}"#,
            r#"{"health":["none"]}"#,
        ] {
            assert!(passes(text), "{text}");
        }
        for text in [
            r#"{"name":["db"]}"#,
            r#"{"id":["b"]}"#,
            r#"{"label":["a","a=2"]}"#,
            r#"{"status":["running"]}"#,
            r#"{"exited":["0"]}"#,
            r#"{"network":["x"]}"#,
            r#"{"publish":["80"]}"#,
            r#"{"volume":["v"]}"#,
        ] {
            assert!(!passes(text), "{text}");
        }
        assert!(filter(r#"{"exited":["0"]}"#).wants_stopped());
    }
}
