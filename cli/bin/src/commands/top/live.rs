//! The live view on a terminal: events in, screens out.

use std::collections::BTreeMap;
use std::io::stdout;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_api::options::ListContainers;
use berth_client::Client;
use berth_lab::observe;
use berth_lab::sample::{Column, Counters, Sampler, Watch};
use crossterm::event::{self, Event, KeyEventKind};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::DefaultTerminal;

use super::draw::{Machine, draw};
use super::state::{Row, State, Wish};
use crate::exit::Exit;
use crate::session::Session;

/// Readings a second.
const RATE: f64 = 2.0;
/// Readings kept for the history: a minute's.
const KEPT: usize = 120;
/// How often keys are looked for.
const LISTEN: Duration = Duration::from_millis(40);
/// How often containers and numbers are renewed.
const RENEW: Duration = Duration::from_millis(500);

pub(super) async fn run(session: &Session) -> Result<Exit> {
    let client = session.client().await?;
    let mut view = View::new(client, session.address())?;
    // Interrupts end what runs in the foreground for us, not us.
    let _interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminal = ratatui::init();
    let ended = view.show(&mut terminal).await;
    ratatui::restore();
    ended?;
    Ok(Exit::Success)
}

/// A container that is watched; `None` if it cannot be.
type Watched = (String, String, Option<Watch>);

struct View {
    client: Client,
    address: String,
    sampler: Sampler,
    machine: Watch,
    origin: Instant,
    watched: BTreeMap<String, Watched>,
    state: State,
}

impl View {
    fn new(client: Client, address: String) -> Result<Self> {
        let (sampler, origin) = (Sampler::start(RATE)?, Instant::now());
        let machine = sampler.watch(Counters::of_machine(), origin);
        Ok(Self {
            client,
            address,
            sampler,
            machine,
            origin,
            watched: BTreeMap::new(),
            state: State::default(),
        })
    }

    async fn show(&mut self, terminal: &mut DefaultTerminal) -> Result<()> {
        let mut renewed = None;
        loop {
            if renewed.is_none_or(|at: Instant| at.elapsed() >= RENEW) {
                self.renew().await?;
                renewed = Some(Instant::now());
                let machine = self.machine();
                terminal.draw(|frame| draw(frame, &self.state, &machine)).context("cannot draw")?;
            }
            while event::poll(Duration::ZERO).context("cannot read the keyboard")? {
                let wish = match event::read().context("cannot read the keyboard")? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => self.state.key(key),
                    _ => Wish::Nothing,
                };
                match wish {
                    Wish::Nothing => {}
                    Wish::Quit => return Ok(()),
                    Wish::Logs(id) => self.aside(terminal, &["logs", "--follow", "--tail", "200", &id])?,
                    Wish::Shell(id) => self.aside(terminal, &["exec", "-it", &id, "sh"])?,
                }
                let machine = self.machine();
                terminal.draw(|frame| draw(frame, &self.state, &machine)).context("cannot draw")?;
            }
            tokio::time::sleep(LISTEN).await;
        }
    }

    /// Watches new containers, forgets those that went, and takes the numbers of all.
    async fn renew(&mut self) -> Result<()> {
        let listed = self.client.container_list(&ListContainers::default()).await?;
        self.watched.retain(|id, _| listed.iter().any(|container| container.id == *id));
        for container in listed {
            if self.watched.contains_key(&container.id) {
                continue;
            }
            match observe::watch(&self.client, &self.sampler, &container.id, self.origin).await {
                Ok(Some((name, watch))) => {
                    self.watched.insert(container.id, (name, container.image, Some(watch)));
                }
                // It has ended since it was listed.
                Ok(None) => {}
                Err(error) => {
                    self.state.message = Some(error.to_string());
                    let name = container.names.first().map(|name| name.trim_start_matches('/').to_owned());
                    self.watched.insert(container.id, (name.unwrap_or_default(), container.image, None));
                }
            }
        }
        let row = |(id, (name, image, watch)): (&String, &Watched)| {
            let samples = watch.as_ref().map(|watch| {
                watch.keep(KEPT);
                watch.samples()
            });
            Row::of(id, name, image, &samples.unwrap_or_default())
        };
        self.state.update(self.watched.iter().map(row).collect());
        Ok(())
    }

    fn machine(&self) -> Machine {
        self.machine.keep(KEPT);
        let samples = self.machine.samples();
        let now = samples.at.last().copied().unwrap_or(0.0);
        let rate = |column| samples.rate(column, (now - 1.05, now));
        let waiting = [Column::PsiCpuUs, Column::PsiMemoryUs, Column::PsiIoUs].map(rate);
        Machine {
            busy: rate(Column::CpuNs).unwrap_or(0.0) / 1e9,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            waiting: waiting[0].map(|_| waiting.map(|rate| rate.unwrap_or(0.0) / 1e6)),
            engine: self.address.clone(),
        }
    }

    /// Gives the terminal to another command of ours until it ends.
    fn aside(&mut self, terminal: &mut DefaultTerminal, arguments: &[&str]) -> Result<()> {
        disable_raw_mode().context("cannot restore the terminal")?;
        execute!(stdout(), LeaveAlternateScreen).context("cannot restore the terminal")?;
        let program = std::env::current_exe().context("cannot find our own program")?;
        let ended = Command::new(program).args(["-H", &self.address]).args(arguments).status();
        execute!(stdout(), EnterAlternateScreen).context("cannot take the terminal back")?;
        enable_raw_mode().context("cannot take the terminal back")?;
        terminal.clear().context("cannot draw")?;
        self.state.message = match ended {
            Ok(status) if status.success() || status.code().is_none() => None,
            Ok(status) => Some(format!("{} ended with {}", arguments[0], status.code().unwrap_or(1))),
            Err(error) => Some(format!("{}: {error}", arguments[0])),
        };
        Ok(())
    }
}
