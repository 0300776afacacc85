//! How the live view looks.

use berth_lab::experiment::format_bytes;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState};

use super::state::{Row, Sort, State};

/// What is said of the whole machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    /// Cores in use, and how many there are.
    pub(super) busy: f64,
    pub(super) processors: usize,
    /// Part of the time some task waited for a processor, for memory, for a device.
    pub(super) waiting: Option<[f64; 3]>,
    /// The engine's address.
    pub(super) engine: String,
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &State, machine: &Machine) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(header(state, machine), head);
    let rows = state.shown();
    if rows.is_empty() {
        let text = if state.count() == 0 { "No container runs." } else { "No container matches the filter." };
        frame.render_widget(Paragraph::new(text).dim(), body);
    } else {
        table(frame, body, state, &rows, machine.processors);
    }
    frame.render_widget(footer(state), foot);
}

fn header(state: &State, machine: &Machine) -> Paragraph<'static> {
    let mut spans = vec![
        "berth top".bold(),
        Span::raw(format!("  {}  ", machine.engine)).dim(),
        Span::raw(format!("{} containers", state.count())),
        Span::raw(format!("  processors {:.2} of {}", machine.busy, machine.processors)),
    ];
    if let Some(waiting) = machine.waiting {
        spans.push(Span::raw(format!("  waiting {}", percentages(waiting))));
    }
    Paragraph::new(vec![Line::from(spans), Line::default()])
}

fn footer(state: &State) -> Line<'static> {
    if let Some(message) = &state.message {
        return Line::from(message.clone()).fg(Color::Yellow);
    }
    if state.filtering {
        return Line::from(format!("filter: {}▏  enter keeps it, escape drops it", state.filter));
    }
    let mut keys: Vec<Span<'static>> = Vec::new();
    for (key, what) in [
        ("↑↓", "choose"),
        ("←→", "sort"),
        ("r", "reverse"),
        ("/", "filter"),
        ("l", "logs"),
        ("e", "shell"),
        ("q", "quit"),
    ] {
        keys.extend([Span::raw(key).bold(), Span::raw(format!(" {what}  ")).dim()]);
    }
    if !state.filter.is_empty() {
        keys.push(Span::raw(format!("filter: {}", state.filter)).fg(Color::Yellow));
    }
    Line::from(keys)
}

/// Columns: head, what it is sorted by, width. `0` takes what is left.
const COLUMNS: &[(&str, Option<Sort>, u16)] = &[
    ("NAME", Some(Sort::Name), 0),
    ("CPU", Some(Sort::Cpu), 12),
    ("LAST MINUTE", None, 16),
    ("THROTTLED", Some(Sort::Throttled), 9),
    ("MEMORY", Some(Sort::Memory), 31),
    ("CPU/MEM/IO WAIT", None, 15),
    ("PIDS", Some(Sort::Pids), 6),
    ("NET IN / OUT", Some(Sort::Net), 21),
    ("DISK IN / OUT", Some(Sort::Io), 21),
];

fn table(frame: &mut Frame<'_>, area: Rect, state: &State, rows: &[&Row], processors: usize) {
    let head = COLUMNS.iter().map(|(name, sort, _)| {
        let sorted = *sort == Some(state.sort);
        let arrow = match (sorted, state.descending) {
            (true, true) => "▼",
            (true, false) => "▲",
            _ => "",
        };
        let style = if sorted { Style::new().fg(Color::Cyan) } else { Style::new() };
        Cell::from(format!("{name}{arrow}")).style(style.add_modifier(Modifier::BOLD))
    });
    let widths = COLUMNS.iter().map(|(.., width)| match width {
        0 => Constraint::Min(12),
        width => Constraint::Length(*width),
    });
    let rows = rows.iter().map(|row| TableRow::new(cells(row, processors)));
    let table = Table::new(rows, widths)
        .header(TableRow::new(head))
        .column_spacing(2)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut place = TableState::default().with_selected(state.selected());
    frame.render_stateful_widget(table, area, &mut place);
}

fn cells(row: &Row, processors: usize) -> Vec<Cell<'static>> {
    let cpu = match row.cpu_limit {
        Some(limit) => format!("{:.2} of {limit:.2}", row.cpu),
        None => format!("{:.2}", row.cpu),
    };
    let highest = row.cpu_limit.unwrap_or(processors as f64);
    let throttled = match row.throttled {
        Some(part) => Cell::from(format!("{:>5.0} %", part * 100.0)).style(heat(part)),
        None => Cell::from("    –"),
    };
    let waiting = row.waiting.map_or_else(|| "–".to_owned(), percentages);
    vec![
        Cell::from(row.name.clone()),
        Cell::from(cpu),
        Cell::from(spark(&row.history, highest, 16)).style(Style::new().fg(Color::Cyan)),
        throttled,
        memory(row),
        Cell::from(waiting),
        Cell::from(format!("{:>4.0}", row.pids)),
        Cell::from(pair(row.net)),
        Cell::from(pair(row.io)),
    ]
}

fn memory(row: &Row) -> Cell<'static> {
    match row.memory_limit {
        Some(limit) => {
            let part = (row.memory / limit).clamp(0.0, 1.0);
            let full = (part * 8.0).round() as usize;
            let bar = format!("{}{}", "█".repeat(full), "░".repeat(8 - full));
            let text = format!(" {} of {}", format_bytes(row.memory), format_bytes(limit));
            Cell::from(Line::from(vec![Span::styled(bar, heat(part)), Span::raw(text)]))
        }
        None => Cell::from(format_bytes(row.memory)),
    }
}

/// Green, then yellow, then red.
fn heat(part: f64) -> Style {
    Style::new().fg(match part {
        ..0.5 => Color::Green,
        ..0.9 => Color::Yellow,
        _ => Color::Red,
    })
}

fn pair([one, other]: [f64; 2]) -> String {
    let rate = |value: f64| if value < 1.0 { "–".to_owned() } else { format_bytes(value) };
    format!("{} / {}", rate(one), rate(other))
}

fn percentages(parts: [f64; 3]) -> String {
    let percent = |part: f64| format!("{:.0}", part * 100.0);
    format!("{} %", parts.map(percent).join("/"))
}

/// The last values as a row of blocks.
pub(in crate::commands) fn spark(values: &[f64], highest: f64, width: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    // Several readings share a block, so that the row covers the whole history.
    let per_block = values.len().div_ceil(width).max(1);
    let means =
        values.rchunks(per_block).take(width).map(|chunk| chunk.iter().sum::<f64>() / chunk.len() as f64);
    let mut blocks: Vec<char> =
        means.map(|mean| BLOCKS[((mean / highest.max(1e-9) * 8.0) as usize).min(7)]).collect();
    blocks.reverse();
    blocks.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(state: &State) -> String {
        let mut terminal = Terminal::new(TestBackend::new(170, 8)).expect("a screen");
        let machine = Machine {
            busy: 1.5,
            processors: 2,
            waiting: Some([0.1, 0.0, 0.0]),
            engine: "unix:///x".to_owned(),
        };
        terminal.draw(|frame| draw(frame, state, &machine)).expect("drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn a_screen() {
        let mut state = State::default();
        assert!(screen(&state).contains("No container runs."));
        state.update(vec![Row {
            id: "1".to_owned(),
            name: "web".to_owned(),
            cpu: 0.5,
            cpu_limit: Some(0.5),
            history: vec![0.0, 0.25, 0.5],
            throttled: Some(1.0),
            memory: f64::from(32 << 20),
            memory_limit: Some(f64::from(64 << 20)),
            net: [2048.0, 0.0],
            ..Row::default()
        }]);
        let screen = screen(&state);
        for wanted in [
            "1 containers",
            "processors 1.50 of 2",
            "CPU▼",
            "0.50 of 0.50",
            "▁▅█",
            "100 %",
            "████░░░░ 32 MiB of 64 MiB",
            "2 KiB / –",
            "quit",
        ] {
            assert!(screen.contains(wanted), "{wanted} is missing in\n{screen}");
        }
    }

    #[test]
    fn sparks_cover_the_whole_history() {
        assert_eq!(spark(&[0.0, 1.0], 1.0, 4), "▁█");
        let long: Vec<f64> = (0..100).map(|n| f64::from(n) / 100.0).collect();
        assert_eq!(spark(&long, 1.0, 4), "▁▃▅▇");
        assert_eq!(spark(&[], 1.0, 4), "");
    }
}
