//! `berth compose up` in the foreground: what containers print, until they have ended or the user has had enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_api::options::{Attach, Logs};
use berth_client::Client;
use berth_compose::Engine;
use berth_compose::apply::{Created, Listener, StopOptions};
use berth_compose::logs::{self, Happening, Lines, Monitor};
use berth_compose::model::Project;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::images::Maker;
use super::progress::Printer;
use super::up::Up;
use crate::exit::Exit;

/// What a container said last comes before that it has ended.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// How long output may take to come in after the last container has ended.
const REST: Duration = Duration::from_secs(1);

/// Starts containers and shows what they print until they have ended.
pub(super) async fn run(
    engine: &Engine,
    project: &Project,
    up: &Up,
    created: &BTreeMap<String, Vec<Created>>,
    printer: Arc<Printer>,
    maker: Maker,
) -> Result<Exit> {
    let watched: BTreeSet<String> = up.services.iter().cloned().collect();
    let mut monitor = Monitor::new(&engine.client, &project.name, watched).await?;
    let mut output = Output::new(engine.client.clone(), printer);
    output.attach(project, up, created).await?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let (mut maker, mut watching) = (Some(maker), None);
    let mut ending = Ending { engine, project, up, exit: None, asked: false, stops: JoinSet::new() };
    let start = engine.start_created(project, created);
    tokio::pin!(start);
    let mut started = false;
    // Who watches may mend what has ended: there it goes on until the user has had enough.
    while !output.alive.is_empty() || !started || (watching.is_some() && !ending.asked) {
        tokio::select! {
            result = &mut start, if !started => {
                started = true;
                if !ending.asked {
                    result?;
                    if let Some(maker) = maker.take().filter(|_| up.watch) {
                        let (engine, project) = (engine.clone(), project.clone());
                        watching = Some(super::watch::spawn(engine, project, Vec::new(), maker, true)?);
                    }
                }
            }
            _ = interrupt.recv() => ending.asked().await?,
            _ = terminate.recv() => ending.asked().await?,
            Some(stopped) = ending.stops.join_next() => stopped??,
            happening = monitor.next() => match happening? {
                None => break,
                Some(Happening::Started { id, source }) => output.started(id, source).await?,
                Some(Happening::Exited { id, source, service, code }) => {
                    if output.exited(&id, &source, code).await {
                        ending.container_ended(&service, code);
                    }
                }
            },
        }
    }
    if let Some(watching) = watching {
        watching.abort();
    }
    output.finish().await?;
    while let Some(stopped) = ending.stops.join_next().await {
        stopped??;
    }
    Ok(ending.exit.map_or(Exit::Success, Exit::of_program))
}

/// The services whose output is shown.
fn shown(project: &Project, up: &Up) -> BTreeSet<String> {
    let all = project
        .services
        .iter()
        .filter(|(_, service)| service.attach != Some(false))
        .map(|(name, _)| name.clone());
    let mut shown: BTreeSet<String> = if !up.attach.is_empty() {
        up.attach.iter().cloned().collect()
    } else if up.services.is_empty() || up.attach_dependencies {
        all.collect()
    } else {
        up.services.iter().cloned().collect()
    };
    shown.retain(|name| !up.no_attach.contains(name));
    shown
}

/// The containers that run, and those who read what they print.
struct Output {
    client: Client,
    printer: Arc<Printer>,
    readers: JoinSet<Result<()>>,
    alive: BTreeSet<String>,
    /// Those that have ended; they may start again.
    ended: BTreeSet<String>,
}

impl Output {
    fn new(client: Client, printer: Arc<Printer>) -> Self {
        Self { client, printer, readers: JoinSet::new(), alive: BTreeSet::new(), ended: BTreeSet::new() }
    }

    /// Attaches to the containers before they start.
    async fn attach(
        &mut self,
        project: &Project,
        up: &Up,
        created: &BTreeMap<String, Vec<Created>>,
    ) -> Result<()> {
        let shown = shown(project, up);
        let source = |name: &str| name.strip_prefix(&format!("{}-", project.name)).unwrap_or(name).to_owned();
        let all = || {
            created.iter().flat_map(|(service, own)| own.iter().map(move |container| (service, container)))
        };
        let names: Vec<String> = all()
            .filter(|(service, _)| shown.contains(*service))
            .map(|(_, container)| source(&container.name))
            .collect();
        self.printer.expect(names.iter().map(String::as_str));
        if !names.is_empty() {
            println!("Attaching to {}", names.join(", "));
        }
        for (service, container) in all() {
            if up.services.is_empty() || up.services.contains(service) {
                self.alive.insert(container.id.clone());
            }
            if shown.contains(service) {
                let tty = project.services.get(service).is_some_and(|service| service.tty);
                self.follow(&container.id, source(&container.name), tty).await?;
            }
        }
        Ok(())
    }

    /// Attaches to a container that may not run yet, and tells its lines to their end.
    async fn follow(&mut self, id: &str, source: String, tty: bool) -> Result<()> {
        let attach = Attach { stream: true, stdout: true, stderr: true, ..Attach::default() };
        let mut streams = self.client.container_attach(id, &attach, tty).await?;
        let printer = Arc::clone(&self.printer);
        self.readers.spawn(async move {
            let mut lines = Lines::default();
            while let Some((_, bytes)) = streams.output.next_output().await? {
                lines.push(&bytes, |line| printer.line(&source, line));
            }
            lines.end(|line| printer.line(&source, line));
            // The input's half is held until here: closing it would end the output.
            drop(streams.input);
            Ok(())
        });
        Ok(())
    }

    /// A container has started: one that is new, or one that was restarted, is read from its log.
    async fn started(&mut self, id: String, source: String) -> Result<()> {
        let again = self.ended.remove(&id);
        if !self.alive.insert(id.clone()) && !again {
            return Ok(());
        }
        let since = if again { logs::started_at(&self.client, &id).await? } else { None };
        let (client, printer) = (self.client.clone(), Arc::clone(&self.printer));
        self.readers.spawn(async move {
            let options = Logs { follow: true, stdout: true, stderr: true, since, ..Logs::default() };
            Ok(logs::of_container(&client, &id, &source, &options, printer.as_ref()).await?)
        });
        Ok(())
    }

    /// A container has ended; tells whether for good.
    async fn exited(&mut self, id: &str, source: &str, code: i64) -> bool {
        let inspect = self.client.container_inspect(id, false).await;
        let restarts = inspect.is_ok_and(|inspect| inspect.state.restarting || inspect.state.running);
        self.ended.insert(id.to_owned());
        if !restarts {
            self.alive.remove(id);
        }
        tokio::time::sleep(LAST_WORDS).await;
        println!("{source} exited with code {code}{}", if restarts { " (restarting)" } else { "" });
        !restarts
    }

    /// Waits for what is still to be printed.
    async fn finish(&mut self) -> Result<()> {
        while let Ok(Some(read)) = tokio::time::timeout(REST, self.readers.join_next()).await {
            read??;
        }
        Ok(())
    }
}

/// How an attached `up` comes to its end.
struct Ending<'a> {
    engine: &'a Engine,
    project: &'a Project,
    up: &'a Up,
    exit: Option<i64>,
    asked: bool,
    stops: JoinSet<Result<()>>,
}

impl Ending<'_> {
    fn stop(&mut self) {
        let (engine, project) = (self.engine.clone(), self.project.clone());
        let options = StopOptions { services: self.up.services.clone(), timeout: self.up.timeout };
        self.stops.spawn(async move { Ok(engine.stop(&project, &options).await?) });
    }

    /// Ctrl-C: once stops, twice kills.
    async fn asked(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.asked, true) {
            self.engine.kill(self.project, &self.up.services, "SIGKILL").await?;
        } else {
            println!("Gracefully Stopping... press Ctrl+C again to force");
            self.exit.get_or_insert(130);
            self.stop();
        }
        Ok(())
    }

    fn container_ended(&mut self, service: &str, code: i64) {
        let from = self.up.exit_code_from.as_deref();
        if from == Some(service) && !self.asked {
            self.exit = Some(code);
        }
        let aborts = self.up.abort_on_container_exit
            || from.is_some()
            || (self.up.abort_on_container_failure && code != 0);
        if aborts && !self.asked {
            eprintln!("Aborting on container exit...");
            self.asked = true;
            if from.is_none() {
                self.exit = Some(code);
            }
            self.stop();
        }
    }
}
