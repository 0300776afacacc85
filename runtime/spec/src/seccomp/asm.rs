//! An assembler for classic BPF that writes programs backwards.
//!
//! In BPF every jump goes forward. Written from the end to the beginning, a jump's target is always known when the
//! jump is written, so there is no second pass and no label table: a [`Label`] is a distance from the end. A
//! conditional jump reaches 255 instructions; a target farther away gets a copy of its `ret`, or a trampoline.

use super::Instruction;

// linux/bpf_common.h, linux/filter.h
const LD_W_ABS: u16 = 0x20;
const ALU_AND_K: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const JGT_K: u16 = 0x25;
const JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

/// A position in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A comparison of the accumulator with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
}

/// The program so far, last instruction first.
#[derive(Debug, Default)]
pub(super) struct Backwards {
    code: Vec<Instruction>,
    /// Latest position of each `ret`.
    returns: Vec<(u32, Label)>,
}

impl Backwards {
    /// The program in the kernel's order.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.code.reverse();
        self.code
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.code.push(Instruction { code, jt, jf, k });
        Label(self.code.len() - 1)
    }

    fn distance(&self, target: Label) -> usize {
        self.code.len() - target.0 - 1
    }

    /// `ret value`, shared with an earlier one that a conditional jump still reaches.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        // Two instructions of margin: the jump that follows may need a trampoline for its other branch.
        let known = self.returns.iter().position(|(known, _)| *known == value);
        if let Some(at) = known
            && self.distance(self.returns[at].1) <= usize::from(u8::MAX) - 2
        {
            return self.returns[at].1;
        }
        let label = self.push(RET_K, 0, 0, value);
        match known {
            Some(at) => self.returns[at].1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// Makes `target` reachable for a conditional jump that is written after at most one further instruction.
    fn near(&mut self, target: Label) -> Label {
        if self.distance(target) < usize::from(u8::MAX) {
            return target;
        }
        let instruction = self.code[target.0];
        if instruction.code == RET_K { self.ret(instruction.k) } else { self.jump(target) }
    }

    /// `ja target`
    fn jump(&mut self, target: Label) -> Label {
        let distance =
            u32::try_from(self.distance(target)).expect("programs are shorter than 4 Gi instructions");
        self.push(JA, 0, 0, distance)
    }

    /// A conditional jump on the accumulator.
    pub(super) fn branch(&mut self, test: Test, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let no = self.near(no);
        let yes = self.near(yes);
        let code = match test {
            Test::Equal => JEQ_K,
            Test::Greater => JGT_K,
            Test::GreaterOrEqual => JGE_K,
        };
        let offset = |distance: usize| u8::try_from(distance).expect("near() keeps targets within reach");
        let (jt, jf) = (offset(self.distance(yes)), offset(self.distance(no)));
        self.push(code, jt, jf, k)
    }

    /// Loads a word of `struct seccomp_data` and goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(LD_W_ABS, 0, 0, offset)
    }

    /// `and #mask`, going on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(ALU_AND_K, 0, 0, mask)
    }

    /// Makes `next` the instruction that follows the one written next.
    fn fall_into(&mut self, next: Label) {
        if self.distance(next) != 0 {
            self.jump(next);
        }
    }
}
