//! In which order an experiment is run.

/// One run: which engine, which setting, which repetition; all counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRun {
    /// Engine.
    pub engine: usize,
    /// Setting.
    pub cell: usize,
    /// Repetition.
    pub repetition: u32,
}

/// All runs. Engines and settings take turns within each repetition, and every other repetition goes backwards: a machine
/// that gets warmer, slower or fuller does so for all of them alike.
#[must_use]
pub fn plan(engines: usize, cells: usize, repetitions: u32) -> Vec<PlannedRun> {
    (0..repetitions)
        .flat_map(|repetition| {
            let pairs = (0..cells).flat_map(move |cell| (0..engines).map(move |engine| (cell, engine)));
            let mut runs: Vec<PlannedRun> =
                pairs.map(|(cell, engine)| PlannedRun { engine, cell, repetition }).collect();
            if repetition % 2 == 1 {
                runs.reverse();
            }
            runs
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_take_turns() {
        let order: Vec<(usize, usize, u32)> =
            plan(2, 2, 2).iter().map(|run| (run.engine, run.cell, run.repetition)).collect();
        assert_eq!(
            order,
            [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1), (1, 0, 1), (0, 0, 1)]
        );
    }
}
