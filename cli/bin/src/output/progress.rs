//! The JSON messages of pull, push, build, load and import, as lines for people.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use anyhow::Result;
use berth_api::progress::ProgressMessage;
use berth_client::{Error, JsonStream};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// What is done with each kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Everything.
    All,
    /// Only what `aux` and errors say.
    Quiet,
}

/// Shows a stream of messages to its end and gives the `aux` values that came with it.
///
/// # Errors
/// With the engine's words if the stream tells of a failure.
pub(crate) async fn show(
    mut stream: JsonStream<ProgressMessage>,
    how: Show,
) -> Result<Vec<serde_json::Value>> {
    let mut screen = Screen::new(how);
    let mut aux = Vec::new();
    while let Some(message) = stream.next().await? {
        screen.show(&message)?;
        aux.extend(message.aux);
    }
    Ok(aux)
}

/// The failure that a message tells of.
pub(crate) fn failure(message: &ProgressMessage, error: &str) -> Error {
    let code = message.error_detail.as_ref().and_then(|detail| detail.code);
    Error::InBand { message: error.trim_end().to_owned(), code }
}

struct Screen {
    how: Show,
    bars: Option<MultiProgress>,
    layers: HashMap<String, ProgressBar>,
}

impl Screen {
    fn new(how: Show) -> Self {
        let bars = (how == Show::All && std::io::stdout().is_terminal()).then(MultiProgress::new);
        Self { how, bars, layers: HashMap::new() }
    }

    fn show(&mut self, message: &ProgressMessage) -> Result<()> {
        if let Some(error) = &message.error {
            return Err(failure(message, error).into());
        }
        if self.how == Show::Quiet {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        if let Some(text) = &message.stream {
            write!(out, "{text}")?;
        } else if let Some(status) = &message.status {
            match &message.id {
                Some(id) if self.bars.is_some() => self.layer(id, status, message),
                // Without a terminal only the turning points are told, not every step of a count.
                Some(_) if message.progress_detail.as_ref().is_some_and(|d| d.total.is_some()) => {}
                Some(id) => writeln!(out, "{id}: {status}")?,
                None => writeln!(out, "{status}")?,
            }
        }
        Ok(out.flush()?)
    }

    fn layer(&mut self, id: &str, status: &str, message: &ProgressMessage) {
        let Some(bars) = &self.bars else { return };
        let bar = self.layers.entry(id.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::no_length());
            bar.set_prefix(id.to_owned());
            bar
        });
        let detail = message.progress_detail.as_ref();
        let counts = detail.and_then(|d| Some((d.current?, d.total.filter(|total| *total > 0)?)));
        let template = match counts {
            Some((current, total)) => {
                bar.set_length(total.unsigned_abs());
                bar.set_position(current.unsigned_abs());
                "{prefix}: {msg} [{bar:50}] {bytes}/{total_bytes}"
            }
            None => "{prefix}: {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(status.to_owned());
        if counts.is_none() {
            bar.tick();
        }
    }
}
