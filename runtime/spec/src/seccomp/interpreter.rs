//! A classic BPF interpreter for `struct seccomp_data`, to compare programs by what they answer.

use super::Instruction;

/// What the kernel hands to a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Data {
    pub(super) nr: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("load from offset {offset}"),
        }
    }
}

/// Runs a program; gives its answer and the number of instructions executed.
pub(super) fn run(program: &[Instruction], data: &Data) -> (u32, usize) {
    let (mut at, mut acc, mut steps) = (0, 0u32, 0);
    loop {
        let i = program[at];
        at += 1;
        steps += 1;
        let mut jump = |taken: bool| at += usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            0x20 => acc = data.word(i.k),
            0x54 => acc &= i.k,
            0x05 => at += i.k as usize,
            0x15 => jump(acc == i.k),
            0x25 => jump(acc > i.k),
            0x35 => jump(acc >= i.k),
            0x06 => return (i.k, steps),
            code => panic!("unknown instruction {code:#x}"),
        }
    }
}
