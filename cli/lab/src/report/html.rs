//! Pages: one file, no network, light and dark.

use std::fmt::Write as _;

use super::figures::Figure;
use super::table::{Cell, Table, findings, summary_table};
use crate::experiment::Experiment;
use crate::measure::Outcome;
use crate::plot::STYLE;
use crate::record::Recording;

/// A page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Title.
    pub title: String,
    /// One line below it.
    pub subtitle: String,
    /// Whether all is as it should be, and how that is said.
    pub verdict: Option<(bool, String)>,
    /// What follows.
    pub sections: Vec<Section>,
}

/// A part of a page.
#[derive(Debug, Clone)]
pub enum Section {
    /// A heading.
    Heading(String),
    /// Text; an empty line begins a new paragraph.
    Text(String),
    /// A table.
    Table(Table),
    /// Plots in a row that wraps: drawings with the style of this page.
    Plots(Vec<(String, bool)>),
    /// Text as it was written, folded away.
    Source(String, String),
}

impl Page {
    /// The page as HTML.
    #[must_use]
    pub fn render(&self) -> String {
        let title = escape(&self.title);
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{}{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n",
            include_str!("page.css")
        );
        if !self.subtitle.is_empty() {
            // Writing into a String does not fail.
            writeln!(html, "<p class=\"subtitle\">{}</p>", escape(&self.subtitle)).ok();
        }
        if let Some((good, text)) = &self.verdict {
            let class = if *good { "good" } else { "bad" };
            writeln!(html, "<p class=\"verdict {class}\">{}</p>", escape(text)).ok();
        }
        html.push_str("</header>\n");
        for section in &self.sections {
            section.render(&mut html);
        }
        html.push_str("</main>\n</body>\n</html>\n");
        html
    }
}

impl Section {
    fn render(&self, html: &mut String) {
        match self {
            Self::Heading(text) => {
                writeln!(html, "<h2>{}</h2>", escape(text)).ok();
            }
            Self::Text(text) => {
                for paragraph in text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
                    writeln!(html, "<p>{}</p>", inline_code(&escape(paragraph))).ok();
                }
            }
            Self::Table(table) => render_table(table, html),
            Self::Plots(plots) => {
                html.push_str("<div class=\"plots\">\n");
                for (plot, panel) in plots {
                    let class = if *panel { "panel" } else { "wide" };
                    writeln!(html, "<figure class=\"{class}\">\n{plot}</figure>").ok();
                }
                html.push_str("</div>\n");
            }
            Self::Source(title, text) => {
                let (title, text) = (escape(title), escape(text));
                writeln!(html, "<details><summary>{title}</summary>\n<pre>{text}</pre></details>").ok();
            }
        }
    }
}

fn render_table(table: &Table, html: &mut String) {
    let number =
        |column: usize| table.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))));
    html.push_str("<div class=\"table\"><table>\n<thead><tr>");
    for (column, head) in table.heads.iter().enumerate() {
        let class = if number(column) { " class=\"number\"" } else { "" };
        write!(html, "<th{class}>{}</th>", escape(head)).ok();
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        html.push_str("<tr>");
        for cell in row {
            let text = inline_code(&escape(cell.plain()));
            match cell {
                Cell::Number(_) => write!(html, "<td class=\"number\">{text}</td>").ok(),
                Cell::Verdict(true) => write!(html, "<td class=\"good\">✓ {text}</td>").ok(),
                Cell::Verdict(false) => write!(html, "<td class=\"bad\">✗ {text}</td>").ok(),
                Cell::Text(_) | Cell::Empty => write!(html, "<td>{text}</td>").ok(),
            };
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `words` between backquotes as code.
fn inline_code(escaped: &str) -> String {
    let mut html = String::new();
    for (index, piece) in escaped.split('`').enumerate() {
        // The last backquote of an odd number is just one.
        match index % 2 {
            0 => html.push_str(piece),
            _ => write!(html, "<code>{piece}</code>").unwrap_or(()),
        }
    }
    html
}

/// The page of an experiment.
pub(super) fn of_experiment(
    experiment: &Experiment,
    recording: &Recording,
    outcome: &Outcome,
    figures: &[Figure],
) -> Page {
    let plots = |panel: bool| -> Vec<(String, bool)> {
        let some = figures.iter().filter(|figure| figure.panel == panel);
        some.map(|figure| (figure.inline.clone(), panel)).collect()
    };
    let mut sections = Vec::new();
    if !experiment.description.is_empty() {
        sections.push(Section::Text(experiment.description.clone()));
    }
    let expects = outcome.findings.iter().any(|finding| finding.expect.is_some());
    let observes = outcome.findings.iter().any(|finding| finding.expect.is_none());
    sections.push(Section::Heading("Findings".to_owned()));
    if expects {
        sections.push(Section::Table(summary_table(recording, outcome)));
    }
    let (wide, panels) = (plots(false), plots(true));
    if !wide.is_empty() {
        sections.push(Section::Plots(wide));
    }
    if !panels.is_empty() {
        sections.push(Section::Heading("Over time".to_owned()));
        sections.push(Section::Text("The first repetition of each setting; one scale for all.".to_owned()));
        sections.push(Section::Plots(panels));
    }
    if observes {
        sections.push(Section::Heading("All measures".to_owned()));
        sections.push(Section::Table(findings(recording, outcome)));
    }
    sections.push(Section::Heading("Machine and engines".to_owned()));
    sections.push(Section::Table(machine(recording)));
    sections.push(Section::Heading("How it was measured".to_owned()));
    sections.push(Section::Text(method(experiment, recording)));
    sections.push(Section::Source("The experiment's file".to_owned(), experiment.text.clone()));
    Page {
        title: experiment.name.clone(),
        subtitle: format!("Recorded {} · {} runs", recording.began, recording.runs.len()),
        verdict: verdict(outcome),
        sections,
    }
}

fn verdict(outcome: &Outcome) -> Option<(bool, String)> {
    let expected = outcome.findings.iter().filter(|finding| finding.expect.is_some()).count();
    let failed = outcome.failures().count();
    match (expected, failed) {
        (0, _) => None,
        (_, 0) => Some((true, format!("All {expected} expectations hold"))),
        _ => Some((false, format!("{failed} of {expected} expectations do not hold"))),
    }
}

fn machine(recording: &Recording) -> Table {
    let row = |name: &str, value: String| vec![Cell::Text(name.to_owned()), Cell::Text(value)];
    let facts = recording.facts.machine.iter().map(|(name, value)| row(name, value.clone()));
    let engines = recording.engines.iter().map(|engine| {
        row(
            &format!("Engine {}", engine.name),
            format!("{} (control groups: {})", engine.version, engine.cgroup),
        )
    });
    Table { heads: vec!["Fact".to_owned(), "Value".to_owned()], rows: facts.chain(engines).collect() }
}

fn method(experiment: &Experiment, recording: &Recording) -> String {
    let other = recording.other_work().map_or(String::new(), |cores| {
        format!(" Meanwhile the machine did other work for {cores:.2} cores on average: the less, the better the figures.")
    });
    format!(
        "{} repetitions of each setting, engines and settings taking turns. The load runs for {} s; measures are taken while \
         all containers run, without the first and the last {} s, from the kernel's own counters in the containers' control \
         groups, read {} times a second beside the engine. Reading them took {:.3} % of one processor.{other} Intervals are 95 % \
         confidence intervals of the mean by Student's t. What the tools in the containers say of themselves is in `output/`, \
         every reading in `samples.csv`.",
        experiment.repetitions,
        experiment.duration.as_secs_f64(),
        recording.settle,
        recording.rate,
        recording.sampling_cost * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stand_alone_and_escape_what_they_show() {
        let page = Page {
            title: "a <b>".to_owned(),
            verdict: Some((false, "1 of 2".to_owned())),
            sections: vec![
                Section::Text("one `x<y`\n\ntwo".to_owned()),
                Section::Table(Table {
                    heads: vec!["h".to_owned()],
                    rows: vec![vec![Cell::Verdict(true)], vec![Cell::Number("1 & 2".to_owned())]],
                }),
            ],
            ..Page::default()
        };
        let html = page.render();
        assert!(html.contains("<h1>a &lt;b&gt;</h1>") && html.contains("<code>x&lt;y</code>"));
        assert!(html.contains("1 &amp; 2") && html.contains("✓ holds"));
        assert_eq!(html.matches("<p>").count(), 2);
        for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
            let outside_svg = html.replace("http://www.w3.org/2000/svg", "");
            assert!(!outside_svg.contains(outside), "{outside}");
        }
    }
}
