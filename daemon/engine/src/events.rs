//! The event bus: what happened, now and in the last 256 events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_api::event::{Actor, Event};
use berth_api::{Filters, options};
use futures_util::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::error::{EngineError, Result};

/// Events, the past ones that were asked for first.
pub type EventStream = BoxStream<'static, Event>;

/// How many past events are kept for `since`.
const REPLAY: usize = 256;
/// How far a listener may fall behind before it loses events.
const BACKLOG: usize = 1024;

const KNOWN_FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Publishes events and remembers the last of them.
#[derive(Debug)]
pub(crate) struct EventBus {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    past: VecDeque<Event>,
    sender: broadcast::Sender<Event>,
}

impl EventBus {
    pub(crate) fn new() -> Self {
        let inner = Inner { past: VecDeque::with_capacity(REPLAY), sender: broadcast::Sender::new(BACKLOG) };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that something happened.
    pub(crate) fn publish(
        &self,
        kind: &str,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let now = Timestamp::now();
        let event = Event {
            kind: kind.to_owned(),
            action: action.into(),
            actor: Actor { id: id.into(), attributes },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        };
        let mut inner = self.lock();
        if inner.past.len() == REPLAY {
            inner.past.pop_front();
        }
        inner.past.push_back(event.clone());
        // An error says that nobody listens.
        inner.sender.send(event).ok();
    }

    pub(crate) fn listeners(&self) -> usize {
        self.lock().sender.receiver_count()
    }

    /// Past events from `since` on, then new ones until `until`.
    pub(crate) fn subscribe(&self, query: options::Events) -> Result<Subscription> {
        if let Some(key) = query.filters.unknown_key(&KNOWN_FILTERS) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let now = Timestamp::now();
        let over = query.until.is_some_and(|until| until <= now);
        let inner = self.lock();
        let past = match (query.since, over) {
            (None, false) => VecDeque::new(),
            (since, _) => inner
                .past
                .iter()
                .filter(|event| since.is_none_or(|since| at(event) >= since))
                .filter(|event| query.until.is_none_or(|until| at(event) <= until))
                .filter(|event| matches(&query.filters, event))
                .cloned()
                .collect(),
        };
        let live = (!over).then(|| inner.sender.subscribe());
        Ok(Subscription { past, live, until: query.until, filters: query.filters })
    }
}

/// Events for one listener.
#[derive(Debug)]
pub(crate) struct Subscription {
    past: VecDeque<Event>,
    live: Option<broadcast::Receiver<Event>>,
    until: Option<Timestamp>,
    filters: Filters,
}

impl Subscription {
    /// The events as a stream.
    pub(crate) fn into_stream(self) -> EventStream {
        futures_util::stream::unfold(self, async |mut this| this.next().await.map(|event| (event, this)))
            .boxed()
    }

    /// The next event; `None` after `until`.
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        let live = self.live.as_mut()?;
        let remaining = self.until.map(|until| {
            std::time::Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default()
        });
        let wanted = async {
            loop {
                match live.recv().await {
                    Ok(event) if matches(&self.filters, &event) => return Some(event),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "a listener to events is too slow");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        match remaining {
            None => wanted.await,
            Some(remaining) => tokio::time::timeout(remaining, wanted).await.ok().flatten(),
        }
    }
}

fn at(event: &Event) -> Timestamp {
    Timestamp::from_nanosecond(event.time_nano.into()).unwrap_or_default()
}

/// Whether an event passes: of one key's values one must match, of `label` all; all keys must.
fn matches(filters: &Filters, event: &Event) -> bool {
    let attributes = &event.actor.attributes;
    let named = |kind: &str, extra: &str| {
        let wanted = filters.get(kind);
        wanted.is_empty()
            || (event.kind == kind || attributes.contains_key(extra))
                && wanted.iter().any(|value| {
                    let own = event.kind == kind
                        && (event.actor.id == *value
                            || event.actor.id.starts_with(value.as_str())
                            || attributes.get("name") == Some(value));
                    own || attributes.get(extra) == Some(value)
                })
    };
    let image = || {
        let wanted = filters.get("image");
        wanted.is_empty()
            || wanted.iter().any(|value| {
                let tagless = |text: &str| text.split_once(':').map_or(text, |(name, _)| name).to_owned();
                let mut found: Vec<&str> = vec![];
                match event.kind.as_str() {
                    "image" => found.extend([event.actor.id.as_str()]),
                    _ => found.extend(attributes.get("image").map(String::as_str)),
                }
                if event.kind == "image" {
                    found.extend(attributes.get("name").map(String::as_str));
                }
                found.iter().any(|name| name == value || tagless(name) == *value)
            })
    };
    let action = |value: &String| {
        event.action == *value || event.action.split_once(": ").is_some_and(|(action, _)| action == value)
    };
    let one_of = |key: &str, test: &dyn Fn(&String) -> bool| {
        let wanted = filters.get(key);
        wanted.is_empty() || wanted.iter().any(test)
    };
    one_of("event", &action)
        && one_of("type", &|value| event.kind == *value)
        && one_of("scope", &|value| event.scope == *value)
        && one_of("daemon", &|value| event.kind == "daemon" && event.actor.id.starts_with(value.as_str()))
        && named("container", "container")
        && named("volume", "volume")
        && named("network", "network")
        && image()
        && filters.matches_labels(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> EventBus {
        let bus = EventBus::new();
        let attributes = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        bus.publish(
            "container",
            "create",
            "aabb",
            attributes(&[("name", "web"), ("image", "busybox:1"), ("k", "v")]),
        );
        bus.publish("network", "connect", "nnnn", attributes(&[("name", "bridge"), ("container", "aabb")]));
        bus.publish(
            "container",
            "exec_create: sh -c x",
            "aabb",
            attributes(&[("name", "web"), ("image", "busybox:1")]),
        );
        bus
    }

    async fn past(filters: &str) -> Vec<String> {
        let now = Timestamp::now();
        let query = options::Events {
            since: Some(Timestamp::UNIX_EPOCH),
            until: Some(now),
            filters: Filters::parse(filters).unwrap(),
        };
        let bus = bus();
        let mut stream = bus.subscribe(options::Events { until: Some(Timestamp::now()), ..query }).unwrap();
        let mut actions = Vec::new();
        while let Some(event) = stream.next().await {
            actions.push(event.action);
        }
        actions
    }

    #[tokio::test]
    async fn replay_ends_and_filters() {
        assert_eq!(past("").await, ["create", "connect", "exec_create: sh -c x"]);
        assert_eq!(past(r#"{"event":["exec_create"]}"#).await, ["exec_create: sh -c x"]);
        assert_eq!(past(r#"{"type":["network"]}"#).await, ["connect"]);
        assert_eq!(past(r#"{"container":["web"]}"#).await, ["create", "exec_create: sh -c x"]);
        assert_eq!(past(r#"{"container":["aabb"]}"#).await.len(), 3);
        assert_eq!(past(r#"{"image":["busybox"]}"#).await.len(), 2);
        assert_eq!(past(r#"{"label":["k=v"]}"#).await, ["create"]);
        assert_eq!(past(r#"{"label":["k=w"]}"#).await, [] as [&str; 0]);
    }

    #[tokio::test]
    async fn the_ring_forgets_the_oldest() {
        let bus = EventBus::new();
        for number in 0..REPLAY + 10 {
            bus.publish("daemon", number.to_string(), "d", BTreeMap::new());
        }
        let query = options::Events {
            since: Some(Timestamp::UNIX_EPOCH),
            until: Some(Timestamp::now()),
            filters: Filters::new(),
        };
        let mut stream = bus.subscribe(query).unwrap();
        assert_eq!(stream.next().await.unwrap().action, "10");
        assert_eq!(stream.past.len(), REPLAY - 1);
    }

    #[test]
    fn unknown_filters_are_refused() {
        let query =
            options::Events { filters: Filters::parse(r#"{"bogus":["1"]}"#).unwrap(), ..Default::default() };
        assert_eq!(EventBus::new().subscribe(query).unwrap_err().message(), "invalid filter 'bogus'");
    }
}
