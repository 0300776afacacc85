//! The compiler against an oracle (seccompiler), against the rules of libseccomp, and against the clock.

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;
use seccompiler as oracle;

use super::interpreter::run;
use super::*;
use crate::defaults::docker_seccomp;
use oci::{Arch, LinuxSeccompAction as Action, LinuxSeccompOperator as Op};

const X86_64: u32 = Arch::ScmpArchX86_64 as u32;
const X86: u32 = Arch::ScmpArchX86 as u32;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;

fn rule(names: &[&str], action: Action, args: &[(usize, Op, u64, u64)]) -> oci::LinuxSyscall {
    let mut rule = oci::LinuxSyscall::default();
    rule.set_names(names.iter().map(|name| (*name).to_owned()).collect());
    rule.set_action(action);
    let args: Vec<_> = args
        .iter()
        .map(|(index, op, value, two)| {
            oci::LinuxSeccompArgBuilder::default()
                .index(*index)
                .op(*op)
                .value(*value)
                .value_two(*two)
                .build()
                .unwrap()
        })
        .collect();
    rule.set_args((!args.is_empty()).then_some(args));
    rule
}

fn profile(default: Action, rules: Vec<oci::LinuxSyscall>, archs: &[Arch]) -> oci::LinuxSeccomp {
    let mut profile = oci::LinuxSeccomp::default();
    profile.set_default_action(default);
    profile.set_architectures(Some(archs.to_vec()));
    profile.set_syscalls(Some(rules));
    profile
}

fn answer(program: &SeccompProgram, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    run(&program.filter, &SystemCall { number: nr, arch, args }).0
}

fn x86_64(profile: &oci::LinuxSeccomp) -> SeccompProgram {
    compile(profile, Arch::ScmpArchX86_64).unwrap()
}

/// The oracle's program for the same rules on x86_64, every rule with the same action.
fn by_seccompiler(default: oracle::SeccompAction, profile: &oci::LinuxSeccomp) -> Vec<Instruction> {
    let mut rules: BTreeMap<i64, Vec<oracle::SeccompRule>> = BTreeMap::new();
    for call in profile.syscalls().iter().flatten() {
        for name in call.names() {
            let Some(nr) = Abi::X86_64.number(name) else { continue };
            let entry = rules.entry(i64::from(nr)).or_default();
            let conditions: Vec<_> = call
                .args()
                .iter()
                .flatten()
                .map(|arg| {
                    let (op, value) = match arg.op() {
                        Op::ScmpCmpEq => (oracle::SeccompCmpOp::Eq, arg.value()),
                        Op::ScmpCmpNe => (oracle::SeccompCmpOp::Ne, arg.value()),
                        Op::ScmpCmpLt => (oracle::SeccompCmpOp::Lt, arg.value()),
                        Op::ScmpCmpLe => (oracle::SeccompCmpOp::Le, arg.value()),
                        Op::ScmpCmpGt => (oracle::SeccompCmpOp::Gt, arg.value()),
                        Op::ScmpCmpGe => (oracle::SeccompCmpOp::Ge, arg.value()),
                        Op::ScmpCmpMaskedEq => {
                            (oracle::SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap())
                        }
                    };
                    let length = oracle::SeccompCmpArgLen::Qword;
                    oracle::SeccompCondition::new(arg.index() as u8, length, op, value).unwrap()
                })
                .collect();
            if !conditions.is_empty() {
                entry.push(oracle::SeccompRule::new(conditions).unwrap());
            }
        }
    }
    let filter =
        oracle::SeccompFilter::new(rules, default, oracle::SeccompAction::Allow, oracle::TargetArch::x86_64)
            .unwrap();
    let program: oracle::BpfProgram = filter.try_into().unwrap();
    program.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
}

/// Arguments that lie on, below and above the constants of the default profile.
const PROBES: [u64; 11] = [0, 1, 8, 37, 38, 39, 40, 41, 0x20008, 0xffff_ffff, 0x1_0000_0000 | 0x0202_0000];

#[test]
fn docker_default_answers_as_the_oracle_for_every_call_it_names() {
    let mut profile = docker_seccomp(&crate::defaults::DEFAULT_CAPABILITIES, Arch::ScmpArchX86_64);
    // clone3 answers ENOSYS; the oracle knows one action only.
    let allowed = profile.syscalls().iter().flatten().filter(|rule| rule.action() == Action::ScmpActAllow);
    profile.set_syscalls(Some(allowed.cloned().collect()));
    let ours = x86_64(&profile);
    let theirs = by_seccompiler(oracle::SeccompAction::Errno(1), &profile);
    let newest = Abi::X86_64.number("removexattrat").unwrap();
    for nr in 0..=newest {
        for probe in PROBES {
            let data = SystemCall { number: nr, arch: X86_64, args: [probe; 6] };
            assert_eq!(run(&ours.filter, &data).0, run(&theirs, &data).0, "call {nr}, argument {probe:#x}");
        }
    }
    assert!(ours.filter.len() < theirs.len(), "{} against {}", ours.filter.len(), theirs.len());
}

#[test]
fn docker_default_is_small_and_fast() {
    let profile = docker_seccomp(&crate::defaults::DEFAULT_CAPABILITIES, Arch::ScmpArchX86_64);
    let start = Instant::now();
    const ROUNDS: u32 = 100;
    for _ in 0..ROUNDS {
        std::hint::black_box(x86_64(&profile));
    }
    let each = start.elapsed() / ROUNDS;
    let program = x86_64(&profile);
    let steps =
        (0..460).map(|nr| run(&program.filter, &SystemCall { number: nr, arch: X86_64, args: [0; 6] }).1);
    let (most, sum) = steps.fold((0, 0), |(most, sum), steps| (steps.max(most), sum + steps));
    println!(
        "{} instructions, {each:?} to compile, {most} steps at most, {} on average",
        program.filter.len(),
        sum / 460
    );
    assert!(program.filter.len() < 700, "{} instructions", program.filter.len());
    assert!(most < 24, "{most} steps");
    // Generous: this also runs unoptimised on a busy machine.
    assert!(each.as_millis() < 20, "{each:?}");
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let program = x86_64(&docker_seccomp(&[], Arch::ScmpArchX86_64));
    assert_eq!(answer(&program, X86_64, 466, [0; 6]), ALLOW);
    for nr in [467, 500, 0x3fff_ffff] {
        assert_eq!(answer(&program, X86_64, nr, [0; 6]), ENOSYS, "{nr}");
        // x32 has calls of its own up to 547.
        assert_eq!(answer(&program, X86_64, nr.max(548) | 0x4000_0000, [0; 6]), ENOSYS, "x32 {nr}");
        assert_eq!(answer(&program, X86, nr, [0; 6]), ENOSYS, "x86 {nr}");
    }
    let list = profile(Action::ScmpActAllow, vec![rule(&["getcwd"], Action::ScmpActErrno, &[])], &[]);
    assert_eq!(
        answer(&x86_64(&list), X86_64, 9999, [0; 6]),
        ALLOW,
        "a list of refusals lets new calls through"
    );
    assert_eq!(answer(&x86_64(&list), X86_64, 79, [0; 6]), EPERM);
}

#[test]
fn clone3_is_enosys_and_clone_checks_its_flags() {
    let program = x86_64(&docker_seccomp(&[], Arch::ScmpArchX86_64));
    assert_eq!(answer(&program, X86_64, 435, [0; 6]), ENOSYS);
    assert_eq!(answer(&program, X86_64, 56, [17, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer(&program, X86_64, 56, [0x1000_0000, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn architectures() {
    let rules = || vec![rule(&["read", "socket"], Action::ScmpActAllow, &[])];
    let native = x86_64(&profile(Action::ScmpActErrno, rules(), &[]));
    assert_eq!(answer(&native, X86_64, 0, [0; 6]), ALLOW);
    assert_eq!(answer(&native, X86, 3, [0; 6]), KILL, "an architecture nobody asked for");
    assert_eq!(answer(&native, X86_64, 0x4000_0000, [0; 6]), KILL, "x32 was not asked for");
    assert_eq!(answer(&native, X86_64, u32::MAX, [0; 6]), ENOSYS);
    let all = x86_64(&profile(Action::ScmpActErrno, rules(), &[Arch::ScmpArchX86, Arch::ScmpArchX32]));
    assert_eq!(answer(&all, X86, 3, [0; 6]), ALLOW);
    assert_eq!(answer(&all, X86_64, 0x4000_0000, [0; 6]), ALLOW);
    assert_eq!(answer(&all, X86, 102, [1, 0, 0, 0, 0, 0]), ALLOW, "socketcall(SYS_SOCKET)");
    assert_eq!(answer(&all, X86, 102, [2, 0, 0, 0, 0, 0]), EPERM, "socketcall(SYS_BIND)");
    let arm = compile(&profile(Action::ScmpActErrno, rules(), &[]), Arch::ScmpArchAarch64).unwrap();
    assert_eq!(answer(&arm, Arch::ScmpArchAarch64 as u32, 63, [0; 6]), ALLOW);
}

#[test]
fn a_rule_without_arguments_wins_and_repeated_arguments_are_alternatives() {
    let rules = vec![
        rule(&["read"], Action::ScmpActErrno, &[(0, Op::ScmpCmpEq, 5, 0)]),
        rule(&["read"], Action::ScmpActLog, &[]),
        rule(&["write"], Action::ScmpActAllow, &[(0, Op::ScmpCmpEq, 1, 0), (0, Op::ScmpCmpEq, 2, 0)]),
        rule(&["close"], Action::ScmpActAllow, &[(0, Op::ScmpCmpEq, 1, 0), (1, Op::ScmpCmpEq, 2, 0)]),
    ];
    let program = x86_64(&profile(Action::ScmpActKillProcess, rules, &[]));
    let default = 0x8000_0000;
    assert_eq!(answer(&program, X86_64, 0, [5; 6]), 0x7ffc_0000);
    for (arg, wanted) in [(1, ALLOW), (2, ALLOW), (3, default)] {
        assert_eq!(answer(&program, X86_64, 1, [arg; 6]), wanted);
    }
    assert_eq!(answer(&program, X86_64, 3, [1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer(&program, X86_64, 3, [1, 1, 0, 0, 0, 0]), default);
}

#[test]
fn notifications() {
    let mut with = profile(Action::ScmpActAllow, vec![rule(&["mkdir"], Action::ScmpActNotify, &[])], &[]);
    assert_eq!(compile(&with, Arch::ScmpArchX86_64).unwrap_err().field, "linux.seccomp.listenerPath");
    with.set_listener_path(Some("/run/agent.sock".into()));
    let program = x86_64(&with);
    assert_eq!(answer(&program, X86_64, 83, [0; 6]), 0x7fc0_0000);
    assert_eq!(program.flags, FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER);
    with.set_flags(Some(vec![oci::LinuxSeccompFilterFlag::SeccompFilterFlagTsync]));
    assert_eq!(x86_64(&with).flags, FLAG_NEW_LISTENER);
    with.set_syscalls(Some(vec![rule(&["write"], Action::ScmpActNotify, &[])]));
    assert!(compile(&with, Arch::ScmpArchX86_64).is_err());
}

#[test]
fn impossible_rules_name_their_place() {
    let bad = profile(
        Action::ScmpActAllow,
        vec![
            rule(&["read"], Action::ScmpActErrno, &[]),
            rule(&["read"], Action::ScmpActErrno, &[(6, Op::ScmpCmpEq, 0, 0)]),
        ],
        &[],
    );
    let error = compile(&bad, Arch::ScmpArchX86_64).unwrap_err();
    assert_eq!(error.field, "linux.seccomp.syscalls[1].args[0].index");
}

#[test]
fn a_profile_of_hundreds_of_argument_checks_keeps_every_jump_in_reach() {
    let args = |i: u64| [(0, Op::ScmpCmpNe, i << 32 | 7, 0), (1, Op::ScmpCmpLt, i << 33, 0)];
    let names = ["read", "write", "open", "close", "stat", "ioctl"];
    let rules =
        (0..200u64).map(|i| rule(&[names[i as usize % 6]], Action::ScmpActAllow, &args(i + 1))).collect();
    let profile = profile(Action::ScmpActErrno, rules, &[]);
    let (ours, theirs) = (x86_64(&profile), by_seccompiler(oracle::SeccompAction::Errno(1), &profile));
    for nr in [0, 1, 2, 3, 4, 16] {
        for arg in PROBES {
            let data = SystemCall { number: nr, arch: X86_64, args: [arg << 32 | 7, arg << 33, 0, 0, 0, 0] };
            assert_eq!(run(&ours.filter, &data).0, run(&theirs, &data).0);
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::ScmpCmpEq),
        Just(Op::ScmpCmpNe),
        Just(Op::ScmpCmpLt),
        Just(Op::ScmpCmpLe),
        Just(Op::ScmpCmpGt),
        Just(Op::ScmpCmpGe),
        Just(Op::ScmpCmpMaskedEq),
    ]
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, (0..4u64).prop_map(|v| v << 32), any::<u64>(), Just(0x1_0000_0001), Just(u64::MAX)]
}

proptest! {
    #[test]
    fn random_profiles_answer_as_the_oracle(
        rules in prop::collection::vec(
            (0usize..8, prop::collection::btree_map(0usize..6, (any_op(), any_value(), any_value()), 1..4)), 1..30),
        calls in prop::collection::vec((0usize..9, prop::array::uniform6(any_value())), 1..60),
    ) {
        let names = ["read", "write", "open", "close", "ptrace", "socket", "clone", "futex", "bpf"];
        let rules: Vec<_> = rules
            .iter()
            .map(|(name, args)| {
                // The oracle masks the datum too, libseccomp does not: keep it inside the mask.
                let args: Vec<_> =
                    args.iter().map(|(index, (op, value, two))| (*index, *op, *value, *two & *value)).collect();
                rule(&[names[*name]], Action::ScmpActAllow, &args)
            })
            .collect();
        let profile = profile(Action::ScmpActLog, rules, &[]);
        let ours = x86_64(&profile);
        let theirs = by_seccompiler(oracle::SeccompAction::Log, &profile);
        for (name, args) in calls {
            let data = SystemCall { number: Abi::X86_64.number(names[name]).unwrap(), arch: X86_64, args };
            prop_assert_eq!(run(&ours.filter, &data).0, run(&theirs, &data).0);
        }
    }
}
