//! What the live view knows, and what keys do to it. Pure.

use berth_lab::sample::{Column, Samples};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a container uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) image: String,
    /// Cores, and the quota if there is one.
    pub(super) cpu: f64,
    pub(super) cpu_limit: Option<f64>,
    /// Cores over the last readings, oldest first.
    pub(super) history: Vec<f64>,
    /// Part of the periods that were throttled; `None` without a quota.
    pub(super) throttled: Option<f64>,
    /// Bytes, and the limit if there is one.
    pub(super) memory: f64,
    pub(super) memory_limit: Option<f64>,
    /// Part of the time some task waited for a processor, for memory, for a device; `None` where the kernel does not count.
    pub(super) waiting: Option<[f64; 3]>,
    pub(super) pids: f64,
    /// Bytes a second received and sent, read and written.
    pub(super) net: [f64; 2],
    pub(super) io: [f64; 2],
}

/// Seconds over which a rate is taken.
const OVER: f64 = 1.0;

impl Row {
    /// The numbers of a container from its latest samples.
    pub(super) fn of(id: &str, name: &str, image: &str, samples: &Samples) -> Self {
        let now = samples.at.last().copied().unwrap_or(0.0);
        let window = (now - OVER - 0.05, now);
        let rate = |column| samples.rate(column, window).unwrap_or(0.0);
        let gauge = |column| samples.last(column, now).unwrap_or(0.0);
        let limit = |column| Some(gauge(column)).filter(|limit| *limit > 0.0);
        let cpu_limit = limit(Column::CpuLimit);
        let periods = samples.growth(Column::Periods, window).filter(|periods| *periods > 0.0);
        let throttled =
            periods.and_then(|periods| Some(samples.growth(Column::ThrottledPeriods, window)? / periods));
        let waiting = samples.column(Column::PsiCpuUs).map(|_| {
            [Column::PsiCpuUs, Column::PsiMemoryUs, Column::PsiIoUs].map(|column| rate(column) / 1e6)
        });
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            image: image.to_owned(),
            cpu: rate(Column::CpuNs) / 1e9,
            cpu_limit,
            history: history(samples),
            throttled: throttled.or(cpu_limit.map(|_| 0.0)),
            memory: gauge(Column::Memory),
            memory_limit: limit(Column::MemoryLimit),
            waiting,
            pids: gauge(Column::Pids),
            net: [rate(Column::NetReceived), rate(Column::NetSent)],
            io: [rate(Column::IoRead), rate(Column::IoWrite)],
        }
    }
}

/// Cores between the readings.
fn history(samples: &Samples) -> Vec<f64> {
    let Some(used) = samples.column(Column::CpuNs) else { return Vec::new() };
    let pairs = used.windows(2).zip(samples.at.windows(2));
    pairs.map(|(used, at)| (used[1] - used[0]) / (at[1] - at[0]) / 1e9).collect()
}

/// What the rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    Cpu,
    Throttled,
    Memory,
    Pids,
    Net,
    Io,
}

impl Sort {
    const ALL: [Self; 7] =
        [Self::Name, Self::Cpu, Self::Throttled, Self::Memory, Self::Pids, Self::Net, Self::Io];

    /// What a row is compared by.
    fn value(self, row: &Row) -> f64 {
        match self {
            Self::Name => 0.0,
            Self::Cpu => row.cpu,
            Self::Throttled => row.throttled.unwrap_or(-1.0),
            Self::Memory => row.memory,
            Self::Pids => row.pids,
            Self::Net => row.net.iter().sum(),
            Self::Io => row.io.iter().sum(),
        }
    }
}

/// What is to be done outside the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Follow the log of the container of this id.
    Logs(String),
    /// Open a shell in it.
    Shell(String),
}

/// The view.
#[derive(Debug)]
pub(super) struct State {
    rows: Vec<Row>,
    pub(super) sort: Sort,
    /// The largest first; names the other way round.
    pub(super) descending: bool,
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) filtering: bool,
    selected: usize,
    /// Something to say, until the next key.
    pub(super) message: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            sort: Sort::Cpu,
            descending: true,
            filter: String::new(),
            filtering: false,
            selected: 0,
            message: None,
        }
    }
}

impl State {
    /// Takes new numbers; the selection stays on its container.
    pub(super) fn update(&mut self, rows: Vec<Row>) {
        let chosen = self.chosen().map(|row| row.id.clone());
        self.rows = rows;
        let place = self.shown().iter().position(|row| Some(&row.id) == chosen.as_ref());
        self.selected = place.unwrap_or(self.selected).min(self.shown().len().saturating_sub(1));
    }

    /// All rows, whatever the filter says.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// The rows to show, in order.
    pub(super) fn shown(&self) -> Vec<&Row> {
        let fits = |row: &&Row| row.name.contains(&self.filter) || row.image.contains(&self.filter);
        let mut rows: Vec<&Row> = self.rows.iter().filter(fits).collect();
        rows.sort_by(|a, b| {
            let by_value = self.sort.value(b).total_cmp(&self.sort.value(a));
            by_value.then_with(|| a.name.cmp(&b.name))
        });
        if !self.descending {
            rows.reverse();
        }
        rows
    }

    /// Place of the selection among the rows shown.
    pub(super) fn selected(&self) -> usize {
        self.selected
    }

    fn chosen(&self) -> Option<&Row> {
        self.shown().get(self.selected).copied()
    }

    /// Does what a key means.
    pub(super) fn key(&mut self, key: KeyEvent) -> Wish {
        self.message = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        if self.filtering {
            self.filter_key(key.code);
            return Wish::Nothing;
        }
        let last = self.shown().len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Right | KeyCode::Char('>') => self.sort_by(1),
            KeyCode::Left | KeyCode::Char('<') => self.sort_by(Sort::ALL.len() - 1),
            KeyCode::Char('r') => self.descending = !self.descending,
            KeyCode::Char('/') => self.filtering = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('l') | KeyCode::Enter => return self.chosen_wish(Wish::Logs),
            KeyCode::Char('e') => return self.chosen_wish(Wish::Shell),
            _ => {}
        }
        self.selected = self.selected.min(self.shown().len().saturating_sub(1));
        Wish::Nothing
    }

    fn filter_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Enter => self.filtering = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.filtering = false;
            }
            _ => {}
        }
        self.selected = 0;
    }

    fn sort_by(&mut self, by: usize) {
        let now = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        self.sort = Sort::ALL[(now + by) % Sort::ALL.len()];
    }

    fn chosen_wish(&self, wish: impl Fn(String) -> Wish) -> Wish {
        self.chosen().map_or(Wish::Nothing, |row| wish(row.id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let row = |name: &str, cpu, memory| Row {
            id: format!("id-{name}"),
            name: name.to_owned(),
            image: "busybox".to_owned(),
            cpu,
            memory,
            ..Row::default()
        };
        let mut state = State::default();
        state.update(vec![row("a", 0.1, 30.0), row("b", 0.3, 10.0), row("c", 0.2, 20.0)]);
        state
    }

    fn press(state: &mut State, keys: &str) -> Wish {
        keys.chars().map(|key| state.key(KeyEvent::from(KeyCode::Char(key)))).last().unwrap_or(Wish::Nothing)
    }

    fn names(state: &State) -> String {
        state.shown().iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn rows_are_sorted_and_reversed() {
        let mut state = state();
        assert_eq!(names(&state), "bca");
        press(&mut state, ">>");
        assert_eq!((state.sort, names(&state).as_str()), (Sort::Memory, "acb"));
        press(&mut state, "r");
        assert_eq!(names(&state), "bca");
    }

    #[test]
    fn the_selection_stays_on_its_container() {
        let mut state = state();
        press(&mut state, "j");
        assert_eq!(press(&mut state, "l"), Wish::Logs("id-c".to_owned()));
        let mut rows: Vec<Row> = state.shown().into_iter().cloned().collect();
        rows.iter_mut().find(|row| row.name == "c").expect("c").cpu = 2.0;
        state.update(rows);
        assert_eq!((names(&state).as_str(), state.selected()), ("cba", 0));
        assert_eq!(press(&mut state, "e"), Wish::Shell("id-c".to_owned()));
    }

    #[test]
    fn filtering_takes_letters_that_are_keys_otherwise() {
        let mut state = state();
        press(&mut state, "/q");
        assert_eq!((state.filter.as_str(), names(&state).as_str()), ("q", ""));
        assert_eq!(press(&mut state, ""), Wish::Nothing);
        state.key(KeyEvent::from(KeyCode::Backspace));
        press(&mut state, "a");
        state.key(KeyEvent::from(KeyCode::Enter));
        assert_eq!(names(&state), "a");
        assert_eq!(press(&mut state, "l"), Wish::Logs("id-a".to_owned()));
        state.key(KeyEvent::from(KeyCode::Esc));
        assert_eq!(names(&state), "bca");
        assert_eq!(press(&mut state, "q"), Wish::Quit);
    }

    #[test]
    fn numbers_come_from_the_last_second() {
        let mut samples = Samples::default();
        for half in 0..8_u32 {
            let at = f64::from(half) / 2.0;
            let used = if at < 2.0 { 0.0 } else { (at - 2.0) * 5e8 };
            samples.push(
                at,
                &[
                    (Column::CpuNs, used),
                    (Column::CpuLimit, 0.5),
                    (Column::Periods, at * 10.0),
                    (Column::ThrottledPeriods, if at < 2.0 { 0.0 } else { (at - 2.0) * 10.0 }),
                    (Column::Memory, 1e6),
                    (Column::MemoryLimit, 0.0),
                ],
            );
        }
        let row = Row::of("id", "n", "i", &samples);
        assert!((row.cpu - 0.5).abs() < 1e-9, "{row:?}");
        assert_eq!((row.cpu_limit, row.memory_limit, row.waiting), (Some(0.5), None, None));
        assert!((row.throttled.expect("a quota") - 1.0).abs() < 1e-9);
        assert_eq!(row.history.len(), 7);
    }
}
