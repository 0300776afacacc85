//! Device rules → a `BPF_PROG_TYPE_CGROUP_DEVICE` program (the device controller of cgroup version 2).
//!
//! Rules apply in order and later ones override earlier ones, so the program tests them from the last to the first and
//! the first match decides. Nothing matched is refused.

use berth_sys::bpf::BpfInsn;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

// linux/bpf.h: `struct bpf_cgroup_dev_ctx` is { access << 16 | type, major, minor }.
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;
const ACC_MKNOD: i32 = 1;
const ACC_READ: i32 = 2;
const ACC_WRITE: i32 = 4;
const ACC_ALL: i32 = ACC_MKNOD | ACC_READ | ACC_WRITE;

// linux/bpf.h, linux/bpf_common.h
const LDX_W: u8 = 0x61;
const MOV32_X: u8 = 0xbc;
const MOV64_K: u8 = 0xb7;
const AND32_K: u8 = 0x54;
const RSH32_K: u8 = 0x74;
const JEQ_K: u8 = 0x15;
const JNE_K: u8 = 0x55;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
/// The context on entry, scratch afterwards.
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> BpfInsn {
    BpfInsn { code, regs: dst | (src << 4), off, imm }
}

/// The program for these rules.
pub(crate) fn program(rules: &[LinuxDeviceCgroup]) -> Vec<BpfInsn> {
    let mut code = vec![
        insn(LDX_W, TYPE, SCRATCH, 0, 0),
        insn(MOV32_X, ACCESS, TYPE, 0, 0),
        insn(AND32_K, TYPE, 0, 0, 0xffff),
        insn(RSH32_K, ACCESS, 0, 0, 16),
        insn(LDX_W, MAJOR, SCRATCH, 4, 0),
        insn(LDX_W, MINOR, SCRATCH, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let tests = tests(rule);
        let catches_all = tests.is_empty();
        append(&mut code, tests, i32::from(rule.allow()));
        if catches_all {
            // What follows could never run, and the verifier of older kernels refuses dead code.
            return code;
        }
    }
    code.push(insn(MOV64_K, RESULT, 0, 0, 0));
    code.push(insn(EXIT, 0, 0, 0, 0));
    code
}

/// Instructions that jump (with an offset yet to be filled in) if the request does not match.
fn tests(rule: &LinuxDeviceCgroup) -> Vec<BpfInsn> {
    let mut tests = Vec::new();
    match rule.typ().unwrap_or_default() {
        LinuxDeviceType::B => tests.push(insn(JNE_K, TYPE, 0, 0, DEV_BLOCK)),
        LinuxDeviceType::C | LinuxDeviceType::U => tests.push(insn(JNE_K, TYPE, 0, 0, DEV_CHAR)),
        LinuxDeviceType::A | LinuxDeviceType::P => {}
    }
    let access = access(rule);
    if access != ACC_ALL {
        tests.push(insn(MOV32_X, SCRATCH, ACCESS, 0, 0));
        if rule.allow() {
            // Allowed if nothing beyond these was asked for.
            tests.push(insn(AND32_K, SCRATCH, 0, 0, ACC_ALL & !access));
            tests.push(insn(JNE_K, SCRATCH, 0, 0, 0));
        } else {
            // Refused if any of these was asked for.
            tests.push(insn(AND32_K, SCRATCH, 0, 0, access));
            tests.push(insn(JEQ_K, SCRATCH, 0, 0, 0));
        }
    }
    for (register, number) in [(MAJOR, rule.major()), (MINOR, rule.minor())] {
        // Device numbers have 12 and 20 bits; -1 is any.
        if let Some(number) =
            number.and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0)
        {
            tests.push(insn(JNE_K, register, 0, 0, number));
        }
    }
    tests
}

fn access(rule: &LinuxDeviceCgroup) -> i32 {
    let text = rule.access().as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm");
    text.chars().fold(0, |all, c| {
        all | match c {
            'r' => ACC_READ,
            'w' => ACC_WRITE,
            'm' => ACC_MKNOD,
            _ => 0,
        }
    })
}

fn append(code: &mut Vec<BpfInsn>, tests: Vec<BpfInsn>, result: i32) {
    // A failed test jumps over the remaining tests and the two instructions of the verdict.
    let length = tests.len() + 2;
    for (at, mut test) in tests.into_iter().enumerate() {
        if test.code == JNE_K || test.code == JEQ_K {
            test.off = i16::try_from(length - at - 1).expect("a rule has fewer than ten instructions");
        }
        code.push(test);
    }
    code.push(insn(MOV64_K, RESULT, 0, 0, result));
    code.push(insn(EXIT, 0, 0, 0, 0));
}

#[cfg(test)]
mod tests_of_programs {
    use super::*;

    /// Runs a program on a request (type, access, major, minor).
    fn run(code: &[BpfInsn], request: (i32, i32, i32, i32)) -> i32 {
        let (typ, access, major, minor) = request;
        let (mut registers, mut at) = ([0i32; 6], 0usize);
        loop {
            let i = code[at];
            at += 1;
            let (dst, src) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
            let jump = usize::try_from(i.off).unwrap_or(0);
            match i.code {
                LDX_W => registers[dst] = [access << 16 | typ, major, minor][jump / 4],
                MOV32_X => registers[dst] = registers[src],
                MOV64_K => registers[dst] = i.imm,
                AND32_K => registers[dst] &= i.imm,
                RSH32_K => registers[dst] >>= i.imm,
                JEQ_K => at += if registers[dst] == i.imm { jump } else { 0 },
                JNE_K => at += if registers[dst] != i.imm { jump } else { 0 },
                EXIT => return registers[0],
                code => panic!("{code:#x}"),
            }
        }
    }

    fn rules(json: &str) -> Vec<BpfInsn> {
        program(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    #[test]
    fn later_rules_override_earlier_ones() {
        let code = rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","access":"m"},
                {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":true,"type":"c","major":136,"minor":-1,"access":"rw"},
                {"allow":false,"type":"c","major":136,"minor":9,"access":"w"}]"#,
        );
        let rw = ACC_READ | ACC_WRITE;
        for (request, wanted) in [
            ((DEV_CHAR, rw, 1, 3), 1),
            ((DEV_CHAR, ACC_READ, 1, 5), 0),
            ((DEV_CHAR, ACC_MKNOD, 1, 5), 1),
            ((DEV_CHAR, ACC_MKNOD | ACC_READ, 1, 5), 0),
            ((DEV_BLOCK, ACC_MKNOD, 1, 5), 0),
            ((DEV_CHAR, rw, 136, 4), 1),
            ((DEV_CHAR, rw, 136, 9), 0),
            ((DEV_CHAR, ACC_READ, 136, 9), 1),
            ((DEV_BLOCK, ACC_READ, 8, 0), 0),
        ] {
            assert_eq!(run(&code, request), wanted, "{request:?}");
        }
    }

    #[test]
    fn a_rule_for_everything_ends_the_program() {
        let code = rules(r#"[{"allow":false,"type":"b","access":"r"},{"allow":true}]"#);
        assert_eq!(code.len(), 6 + 2);
        assert_eq!(run(&code, (DEV_BLOCK, ACC_WRITE, 8, 0)), 1);
        assert_eq!(run(&rules("[]"), (DEV_CHAR, ACC_READ, 1, 3)), 0);
    }
}
