//! `berth lab`: experiments on resource isolation.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_client::{Client, Host};
use berth_lab::compare::Comparison;
use berth_lab::experiment::{Experiment, Overrides, slug};
use berth_lab::facts::Facts;
use berth_lab::measure::Outcome;
use berth_lab::record::Recording;
use berth_lab::report;
use berth_lab::run::{Engine, Finished, Lab};
use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::output::units;
use crate::session::Session;

/// Run experiments on the isolation of resources
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum LabCommand {
    Run(Run),
    Check(Check),
    Compare(Compare),
}

/// Run an experiment and write its report
///
/// The report goes to lab/NAME: report.html, CSV, JSON, SVG and what the containers printed. The exit code is 1 if something
/// that the experiment expects does not hold.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    what: What,
    /// Engine to measure, once for each; the default engine if there is none
    #[arg(long = "engine", value_name = "NAME=ADDRESS", value_parser = engine_address)]
    engines: Vec<(String, String)>,
    /// Directory of the report
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the table of findings only
    #[arg(short, long)]
    quiet: bool,
}

/// Check an experiment's file, and tell what would be run
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    what: What,
}

/// Compare measurements of several subjects: medians, ratios, intervals
///
/// The files have a line of JSON for each measurement, with suite, case, unit, subject and value. The directory gets
/// report.html and results.md.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Files of measurements
    #[arg(required = true, value_name = "FILE.jsonl")]
    files: Vec<PathBuf>,
    /// The subject the others are compared with
    #[arg(long, default_value = "berth", value_name = "SUBJECT")]
    baseline: String,
    /// Title of the report
    #[arg(long, default_value = "Comparison")]
    title: String,
    /// Directory of the report
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct What {
    /// The experiment's file
    #[arg(value_name = "EXPERIMENT.yaml")]
    file: PathBuf,
    /// How long the load runs, instead of what the file says
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    duration: Option<i64>,
    /// How often each setting is run, instead of what the file says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: Option<u32>,
    /// Image of containers that name none
    #[arg(long)]
    image: Option<String>,
    /// Value of a ${NAME} in the file; a name that varies has this value only
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

fn engine_address(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => {
            Ok((name.to_owned(), address.to_owned()))
        }
        _ => Err("expected NAME=ADDRESS, such as dockerd=unix:///run/docker.sock".to_owned()),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as cpus=0.5")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl What {
    fn overrides(&self) -> Overrides {
        Overrides {
            duration: self.duration.map(|nanoseconds| Duration::from_nanos(nanoseconds.unsigned_abs())),
            repetitions: self.repetitions,
            image: self.image.clone(),
            variables: self.set.iter().cloned().collect(),
        }
    }

    /// The experiment; `disk` is the value of `${disk}` unless it was set.
    fn load(&self, disk: Option<String>) -> Result<Experiment> {
        let mut overrides = self.overrides();
        if let Some(disk) = disk {
            overrides.variables.entry("disk".to_owned()).or_insert(disk);
        }
        Ok(berth_lab::load(&self.file, &overrides)?)
    }
}

pub(crate) async fn run(session: &Session, command: LabCommand) -> Result<Exit> {
    match command {
        LabCommand::Run(args) => run_experiment(session, args).await,
        LabCommand::Check(args) => check(&args),
        LabCommand::Compare(args) => compare(&args),
    }
}

fn compare(args: &Compare) -> Result<Exit> {
    let mut text = String::new();
    for file in &args.files {
        text += &std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        text.push('\n');
    }
    let names = || args.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    let comparison = Comparison::parse(&text).with_context(names)?;
    if comparison.is_empty() {
        bail!("{}: there are no measurements", names());
    }
    let (facts, began) = (Facts::gather(), jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
    let (title, baseline) = (&args.title, &args.baseline);
    let markdown = comparison.to_markdown(title, baseline, &facts, &began);
    let write = |name: &str, text: &str| {
        let path = args.output.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make {}", args.output.display()))?;
    write("report.html", &comparison.to_html(title, baseline, &facts, &began))?;
    write("results.md", &markdown)?;
    print!("{markdown}");
    Ok(Exit::Success)
}

fn check(args: &Check) -> Result<Exit> {
    let experiment = args.what.load(Some("/dev/DISK".to_owned()))?;
    println!(
        "{}: {} settings, {} repetitions each",
        experiment.name,
        experiment.cells.len(),
        experiment.repetitions
    );
    for cell in &experiment.cells {
        let names: Vec<&str> =
            cell.scenario.containers.iter().map(|container| container.name.as_str()).collect();
        let label = cell.label();
        println!(
            "  {}{}",
            if label.is_empty() { String::new() } else { format!("{label}: ") },
            names.join(", ")
        );
    }
    let runs = experiment.cells.len() as u64 * u64::from(experiment.repetitions);
    let seconds = experiment.duration.as_secs_f64() * runs as f64;
    println!("{runs} runs on each engine, about {seconds:.0} s");
    Ok(Exit::Success)
}

async fn run_experiment(session: &Session, args: Run) -> Result<Exit> {
    let engines = engines(session, &args.engines).await?;
    let disk = disk_of(&engines[0].client).await?;
    let experiment = args.what.load(disk)?;
    let directory = args.output.clone().unwrap_or_else(|| Path::new("lab").join(slug(&args.what.file)));
    report::make_directory(&directory)?;
    let lab = Lab { experiment: &experiment, engines: &engines, id: format!("lab-{}", std::process::id()) };
    let recorded = tokio::select! {
        recorded = lab.run(|finished| {
            if !args.quiet {
                tell(&experiment, &engines, &finished);
            }
            finished.outputs.iter().try_for_each(|output| report::write_output(&directory, output))
        }) => recorded,
        _ = tokio::signal::ctrl_c() => {
            for engine in &engines {
                engine.clean_up(&lab.id).await?;
            }
            return Err(Failure { message: "interrupted; its containers are removed".to_owned(), code: 130 }.into());
        }
    };
    let recording = recorded?;
    let outcome = Outcome::of(&experiment, &recording);
    report::write_all(&directory, &experiment, &recording, &outcome)?;
    finish(&recording, &outcome, &directory)
}

/// Cores of other work that are worth a word.
const BUSY: f64 = 0.1;

/// Prints what was found.
fn finish(recording: &Recording, outcome: &Outcome, directory: &Path) -> Result<Exit> {
    let mut out = std::io::stdout().lock();
    write!(out, "{}", report::summary_table(recording, outcome).plain())?;
    writeln!(out, "sampling took {:.3} % of one processor", recording.sampling_cost * 100.0)?;
    if let Some(cores) = recording.other_work().filter(|cores| *cores > BUSY) {
        writeln!(
            out,
            "the machine did other work meanwhile, for {cores:.2} cores: figures of throughput may be too low"
        )?;
    }
    writeln!(out, "report: {}", directory.join("report.html").display())?;
    let failed = outcome.failures().count();
    if failed > 0 {
        let message = format!("{failed} of what the experiment expects does not hold (see FAILS above)");
        return Err(Failure { message, code: 1 }.into());
    }
    Ok(Exit::Success)
}

/// A line for each run, on standard error: the table is for pipes.
fn tell(experiment: &Experiment, engines: &[Engine], finished: &Finished<'_>) {
    let cell = &experiment.cells[finished.planned.cell];
    let mut parts = vec![engines[finished.planned.engine].name.clone()];
    parts.extend(Some(cell.label()).filter(|label| !label.is_empty()));
    for measure in &cell.scenario.measures {
        let value = berth_lab::measure::value(measure, finished.run, experiment.settle.as_secs_f64());
        let value = value.map_or("no value".to_owned(), |value| report::show(measure.unit(), value));
        parts.push(format!("{} {value}", measure.label));
    }
    eprintln!("[{}/{}] {}", finished.number, finished.total, parts.join(" · "));
    for container in &finished.run.containers {
        if !container.error.is_empty() {
            eprintln!("    {}: {}", container.name, container.error);
        }
    }
}

/// The engines to measure, connected.
async fn engines(session: &Session, named: &[(String, String)]) -> Result<Vec<Engine>> {
    let mut engines: Vec<Engine> = Vec::new();
    for (name, address) in named {
        if engines.iter().any(|engine| engine.name == *name) {
            bail!("--engine {name}: there are two engines of this name");
        }
        let client = Client::connect(address.parse::<Host>()?).await?;
        engines.push(Engine { name: name.clone(), client });
    }
    if engines.is_empty() {
        let client = session.client().await?;
        let version = client.version().await?;
        let ours = version.components.iter().any(|component| component.name.eq_ignore_ascii_case("berthd"))
            || version.platform.name.to_ascii_lowercase().contains("berth");
        engines.push(Engine { name: if ours { "berth" } else { "dockerd" }.to_owned(), client });
    }
    Ok(engines)
}

/// The disk under an engine's data, as `/dev/NAME`; none if it lies on no disk of this machine.
async fn disk_of(client: &Client) -> Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;

    let root = client.info().await?.docker_root_dir;
    let Ok(metadata) = std::fs::metadata(&root) else { return Ok(None) };
    let (major, minor) = (nix::sys::stat::major(metadata.dev()), nix::sys::stat::minor(metadata.dev()));
    let Ok(device) = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
        return Ok(None);
    };
    // Rates are limited for whole disks: a partition's directory lies in its disk's.
    let disk = if device.join("partition").exists() { device.parent().unwrap_or(&device) } else { &device };
    let name = disk.file_name().context("a block device without a name")?;
    Ok(Some(format!("/dev/{}", name.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_and_settings() {
        let engine = engine_address("dockerd=unix:///run/docker.sock");
        assert_eq!(engine, Ok(("dockerd".to_owned(), "unix:///run/docker.sock".to_owned())));
        assert!(engine_address("unix:///run/docker.sock").is_err() && engine_address("=x").is_err());
        assert_eq!(setting("cpus=0.5"), Ok(("cpus".to_owned(), "0.5".to_owned())));
        assert!(setting("cpus").is_err());
    }
}
