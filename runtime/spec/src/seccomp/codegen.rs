//! Ranges of system call numbers → BPF: a binary search, with the argument checks at its leaves.

use super::asm::{Backwards, Label, Test};
use super::policy::{Clause, Condition, Outcome, Range};
use crate::oci::LinuxSeccompOperator as Op;

/// Offsets in `struct seccomp_data` (seccomp(2)).
pub(super) const NR: u32 = 0;
pub(super) const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Code that decides by system call number; entered with anything in the accumulator.
pub(super) fn section(asm: &mut Backwards, ranges: &[Range], default: u32, narrow: bool) -> Label {
    let root = tree(asm, ranges, default, narrow);
    asm.load(NR, root)
}

fn tree(asm: &mut Backwards, ranges: &[Range], default: u32, narrow: bool) -> Label {
    if let [only] = ranges {
        return leaf(asm, &only.outcome, default, narrow);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let pivot = high[0].start;
    let high = tree(asm, high, default, narrow);
    let low = tree(asm, low, default, narrow);
    asm.branch(Test::GreaterOrEqual, pivot, high, low)
}

fn leaf(asm: &mut Backwards, outcome: &Outcome, default: u32, narrow: bool) -> Label {
    match outcome {
        Outcome::Return(value) => asm.ret(*value),
        Outcome::Clauses(clauses) => clauses
            .iter()
            .rev()
            .fold(None, |next, clause| Some(clause_code(asm, clause, next, default, narrow)))
            .unwrap_or_else(|| asm.ret(default)),
    }
}

fn clause_code(
    asm: &mut Backwards,
    clause: &Clause,
    next: Option<Label>,
    default: u32,
    narrow: bool,
) -> Label {
    let next = next.unwrap_or_else(|| asm.ret(default));
    let mut yes = asm.ret(clause.action);
    for condition in clause.conditions.iter().rev() {
        yes = condition_code(asm, condition, yes, next, narrow);
    }
    yes
}

/// One comparison of an argument. The kernel's words are 32 bits; a 64-bit argument is compared high word first.
fn condition_code(asm: &mut Backwards, condition: &Condition, yes: Label, no: Label, narrow: bool) -> Label {
    let (low, high) = words(condition.index);
    let (value_low, value_high) = split(condition.value);
    if narrow {
        return narrow_code(asm, condition, low, yes, no);
    }
    match condition.op {
        Op::ScmpCmpEq => equal(asm, (low, value_low), (high, value_high), yes, no),
        Op::ScmpCmpNe => equal(asm, (low, value_low), (high, value_high), no, yes),
        Op::ScmpCmpGt => ordered(asm, Test::Greater, (low, value_low), (high, value_high), yes, no),
        Op::ScmpCmpLe => ordered(asm, Test::Greater, (low, value_low), (high, value_high), no, yes),
        Op::ScmpCmpGe => ordered(asm, Test::GreaterOrEqual, (low, value_low), (high, value_high), yes, no),
        Op::ScmpCmpLt => ordered(asm, Test::GreaterOrEqual, (low, value_low), (high, value_high), no, yes),
        Op::ScmpCmpMaskedEq => {
            let (datum_low, datum_high) = split(condition.datum);
            let rest = masked(asm, low, value_low, datum_low, yes, no);
            masked(asm, high, value_high, datum_high, rest, no)
        }
    }
}

/// On a 32-bit ABI the upper word is zero: only the lower one counts.
fn narrow_code(asm: &mut Backwards, condition: &Condition, low: u32, yes: Label, no: Label) -> Label {
    let (value, _) = split(condition.value);
    let (test, yes, no) = match condition.op {
        Op::ScmpCmpEq => (Test::Equal, yes, no),
        Op::ScmpCmpNe => (Test::Equal, no, yes),
        Op::ScmpCmpGt => (Test::Greater, yes, no),
        Op::ScmpCmpLe => (Test::Greater, no, yes),
        Op::ScmpCmpGe => (Test::GreaterOrEqual, yes, no),
        Op::ScmpCmpLt => (Test::GreaterOrEqual, no, yes),
        Op::ScmpCmpMaskedEq => return masked(asm, low, value, split(condition.datum).0, yes, no),
    };
    let branch = asm.branch(test, value, yes, no);
    asm.load(low, branch)
}

fn equal(asm: &mut Backwards, low: (u32, u32), high: (u32, u32), yes: Label, no: Label) -> Label {
    let branch = asm.branch(Test::Equal, low.1, yes, no);
    let rest = asm.load(low.0, branch);
    let branch = asm.branch(Test::Equal, high.1, rest, no);
    asm.load(high.0, branch)
}

fn ordered(
    asm: &mut Backwards,
    test: Test,
    low: (u32, u32),
    high: (u32, u32),
    yes: Label,
    no: Label,
) -> Label {
    let branch = asm.branch(test, low.1, yes, no);
    let rest = asm.load(low.0, branch);
    // The high word decides unless both are equal.
    let below_or_equal = asm.branch(Test::Equal, high.1, rest, no);
    let branch = asm.branch(Test::Greater, high.1, yes, below_or_equal);
    asm.load(high.0, branch)
}

fn masked(asm: &mut Backwards, word: u32, mask: u32, datum: u32, yes: Label, no: Label) -> Label {
    if mask == 0 {
        return if datum == 0 { yes } else { no };
    }
    let branch = asm.branch(Test::Equal, datum, yes, no);
    let and = asm.and(mask, branch);
    asm.load(word, and)
}

/// Offsets of the low and the high word of an argument (both supported architectures are little endian).
fn words(index: u32) -> (u32, u32) {
    (ARGS + 8 * index, ARGS + 8 * index + 4)
}

fn split(value: u64) -> (u32, u32) {
    ((value & 0xffff_ffff) as u32, (value >> 32) as u32)
}
