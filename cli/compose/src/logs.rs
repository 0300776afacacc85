//! What containers print: line by line, merged, and what happens to them meanwhile.

use std::{collections::BTreeSet, sync::Arc};

use berth_client::{
    Client,
    api::{
        container::ContainerSummary,
        event::Event,
        options::{Events, Logs},
    },
};
use tokio::task::JoinSet;

use crate::{
    Result,
    apply::Listener,
    error::Context,
    labels::{self, Labelled, OneOff, of_project},
    observe,
};

/// Bytes put together to lines.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Adds bytes; tells every line they complete.
    pub fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        self.0.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(end) = self.0[start..].iter().position(|byte| *byte == b'\n') {
            let line = &self.0[start..start + end];
            tell(&String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)));
            start += end + 1;
        }
        self.0.drain(..start);
    }

    /// Tells what has no line end.
    pub fn end(&mut self, mut tell: impl FnMut(&str)) {
        if !self.0.is_empty() {
            tell(&String::from_utf8_lossy(&std::mem::take(&mut self.0)));
        }
    }
}

/// What happens to a project's containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// One has started.
    Started {
        /// Its id.
        id: String,
        /// What its lines are told as.
        source: String,
    },
    /// One has ended.
    Exited {
        /// Its id.
        id: String,
        /// What its lines are told as.
        source: String,
        /// Its service.
        service: String,
        /// Its exit code.
        code: i64,
    },
}

/// Follows what happens to the containers of a project; `services` limits it, none is all.
#[derive(Debug)]
pub struct Monitor {
    stream: berth_client::JsonStream<Event>,
    project: String,
    services: BTreeSet<String>,
}

impl Monitor {
    /// Begins to follow. What happens after this returns is told.
    ///
    /// # Errors
    /// If the engine cannot be asked.
    pub async fn new(client: &Client, project: &str, services: BTreeSet<String>) -> Result<Self> {
        let mut filters = of_project(project);
        filters.add("type", "container");
        let options = Events { filters, ..Events::default() };
        let stream = client.events(&options).await.during(|| format!("following project {project:?}"))?;
        Ok(Self { stream, project: project.to_owned(), services })
    }

    /// The next thing that happens; `None` when the engine goes away.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Happening>> {
        while let Some(event) = self.stream.next().await.during(|| "following the project".to_owned())? {
            let attribute = |name: &str| event.actor.attributes.get(name).cloned().unwrap_or_default();
            let service = attribute(labels::SERVICE);
            let other = !self.services.is_empty() && !self.services.contains(&service);
            if other || attribute(labels::ONEOFF) == "True" {
                continue;
            }
            let name = attribute("name");
            let default = format!("{}-{service}-{}", self.project, attribute(labels::NUMBER));
            let source = if name == default { name[self.project.len() + 1..].to_owned() } else { name };
            let id = event.actor.id.clone();
            match event.action.as_str() {
                "start" => return Ok(Some(Happening::Started { id, source })),
                "die" => {
                    let code = attribute("exitCode").parse().unwrap_or(0);
                    return Ok(Some(Happening::Exited { id, source, service, code }));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Tells the lines of one container's log to its end.
///
/// # Errors
/// If the log cannot be read.
pub async fn of_container(
    client: &Client,
    id: &str,
    source: &str,
    options: &Logs,
    listener: &dyn Listener,
) -> Result<()> {
    let during = || format!("reading the log of {source}");
    let inspect = client.container_inspect(id, false).await.during(during)?;
    let mut stream = client.container_logs(id, options, inspect.config.tty).await.during(during)?;
    let mut lines = Lines::default();
    while let Some((_, bytes)) = stream.next_output().await.during(during)? {
        lines.push(&bytes, |line| listener.line(source, line));
    }
    lines.end(|line| listener.line(source, line));
    Ok(())
}

/// Tells the logs of a project, and with `options.follow` those of containers that start later, until nothing runs.
///
/// # Errors
/// If a log cannot be read.
pub async fn of_project_containers(
    client: &Client,
    project: &str,
    containers: Vec<ContainerSummary>,
    services: BTreeSet<String>,
    options: &Logs,
    listener: Arc<dyn Listener>,
) -> Result<()> {
    let monitor = if options.follow { Some(Monitor::new(client, project, services).await?) } else { None };
    let mut readers = JoinSet::new();
    let mut running: BTreeSet<String> = BTreeSet::new();
    let spawn = |readers: &mut JoinSet<Result<()>>, id: String, source: String, options: Logs| {
        let (client, listener) = (client.clone(), Arc::clone(&listener));
        readers.spawn(async move { of_container(&client, &id, &source, &options, listener.as_ref()).await });
    };
    for container in &containers {
        if container.state == "running" {
            running.insert(container.id.clone());
        }
        spawn(&mut readers, container.id.clone(), container.log_name().to_owned(), options.clone());
    }
    let Some(mut monitor) = monitor else {
        while let Some(read) = readers.join_next().await {
            read??;
        }
        return Ok(());
    };
    let mut known: BTreeSet<String> = containers.into_iter().map(|container| container.id).collect();
    while !running.is_empty() || !readers.is_empty() {
        tokio::select! {
            Some(read) = readers.join_next(), if !readers.is_empty() => read??,
            happening = monitor.next() => match happening? {
                None => break,
                Some(Happening::Started { id, source }) => {
                    // A log that is followed goes on through a restart only until its first end.
                    let since = if known.insert(id.clone()) { None } else { started_at(client, &id).await? };
                    running.insert(id.clone());
                    spawn(&mut readers, id, source, Logs { since, ..options.clone() });
                }
                Some(Happening::Exited { id, .. }) => drop(running.remove(&id)),
            },
        }
    }
    Ok(())
}

/// When a container started last.
///
/// # Errors
/// If the engine cannot be asked.
pub async fn started_at(client: &Client, id: &str) -> Result<Option<berth_client::api::when::When>> {
    let inspect = client.container_inspect(id, false).await.during(|| "looking at a container".to_owned())?;
    Ok(Some(inspect.state.started_at.0))
}

/// The container of a service with a number; 0 is the first.
///
/// # Errors
/// If the engine cannot be asked.
pub async fn container_of(
    client: &Client,
    project: &str,
    service: &str,
    index: u32,
    all: bool,
) -> Result<Option<ContainerSummary>> {
    let containers = observe::containers(client, project, OneOff::Include, all).await?;
    let mut own: Vec<ContainerSummary> =
        containers.into_iter().filter(|container| container.service() == service).collect();
    own.sort_by_key(|container| (container.is_one_off(), container.number()));
    Ok(own.into_iter().find(|container| index == 0 || container.number() == index))
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_whole() {
        let mut lines = Lines::default();
        let mut told = Vec::new();
        for piece in ["a", "b\nc\r\n", "d"] {
            lines.push(piece.as_bytes(), |line| told.push(line.to_owned()));
        }
        lines.end(|line| told.push(line.to_owned()));
        assert_eq!(told, ["ab", "c", "d"]);
    }
}
