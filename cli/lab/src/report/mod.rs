//! What is written of an experiment.
//!
//! ```text
//! DIR/report.html      everything, in one file without the network
//!     measures.csv     every measure of every run
//!     samples.csv      every reading
//!     record.json      the recording and what was found
//!     plots/*.svg      each plot, for light and dark
//!     plots/*.png      the same as pixels
//!     output/*.txt     what the containers printed
//!     experiment.yaml  what was run
//! ```

mod figures;
mod html;
mod number;
mod table;

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result, write};
use crate::experiment::Experiment;
use crate::measure::Outcome;
use crate::plot::png;
use crate::record::Recording;

pub use figures::{Figure, figures, time_chart};
pub use html::{Page, Section};
pub use number::show;
pub use table::{Cell as TableCell, Row, Table, findings, summary_table};

/// The recording with what was found.
#[derive(Serialize)]
struct Whole<'a> {
    recording: &'a Recording,
    outcome: &'a Outcome,
}

/// Makes the directory of a report and those in it.
///
/// # Errors
/// If they cannot be made.
pub fn make_directory(directory: &Path) -> Result<()> {
    for sub in ["plots", "output"] {
        let path = directory.join(sub);
        std::fs::create_dir_all(&path).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// Writes what a container printed.
///
/// # Errors
/// If it cannot be written.
pub fn write_output(directory: &Path, output: &crate::run::Output) -> Result<()> {
    write(directory.join("output").join(format!("{}.txt", output.name)), &output.text)
}

/// Writes everything but the containers' output into a directory made by [`make_directory`].
///
/// # Errors
/// If a file cannot be written.
pub fn write_all(
    directory: &Path,
    experiment: &Experiment,
    recording: &Recording,
    outcome: &Outcome,
) -> Result<()> {
    let figures = figures(experiment, recording, outcome);
    for figure in &figures {
        let file = |kind| directory.join("plots").join(format!("{}.{kind}", figure.name));
        write(file("svg"), &figure.alone)?;
        let pixels = png(&figure.alone).map_err(|source| Error::Render { path: file("png"), source })?;
        write(file("png"), pixels)?;
    }
    let whole = serde_json::to_string(&Whole { recording, outcome }).expect("numbers and texts serialise");
    write(directory.join("record.json"), whole)?;
    write(directory.join("samples.csv"), recording.samples_csv())?;
    write(directory.join("measures.csv"), table::measures_csv(recording, outcome))?;
    write(directory.join("experiment.yaml"), &experiment.text)?;
    write(
        directory.join("report.html"),
        html::of_experiment(experiment, recording, outcome, &figures).render(),
    )
}
