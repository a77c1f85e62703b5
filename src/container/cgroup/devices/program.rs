//! From device rules to the eBPF program that carries them out.
//!
//! The kernel runs it at each opening and making of a node, with the device
//! and the accesses wanted in a `struct bpf_cgroup_dev_ctx` (`linux/bpf.h`);
//! 1 allows, 0 denies. For each access the last rule that fits decides, so the
//! rules are looked at from the last to the first and accesses that are
//! decided are struck off: an opening for reading and writing may be allowed
//! by two rules, and is denied as soon as one of the accesses is.
//!
//! Registers: 1 the context, 2 the kind, 3 the accesses not decided yet, 4 and
//! 5 the numbers, 6 scratch.

use super::{DeviceAccess, DeviceKind, DeviceRule};
use crate::sys::bpf::Instruction;

/// Operations: class, operation and `BPF_K` or `BPF_X` of `linux/bpf_common.h`.
const LOAD_WORD: u8 = 0x61;
const MOVE_32: u8 = 0xb4;
const MOVE_32_REGISTER: u8 = 0xbc;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const JUMP_EQUAL_32: u8 = 0x16;
const JUMP_NOT_EQUAL_32: u8 = 0x56;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
/// `BPF_DEVCG_ACC_MKNOD`, `_READ`, `_WRITE`.
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Registers.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Makes the program of a list of rules.
pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        load(KIND, 0),
        move_register(OPEN, KIND),
        // The low half is the kind, the high half the accesses.
        with(AND_32, KIND, 0xffff),
        with(SHIFT_RIGHT_32, OPEN, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(one(rule));
    }
    program.extend(verdict(1));
    program
}

/// One rule; what does not fit jumps over the rest of it.
fn one(rule: &DeviceRule) -> Vec<Instruction> {
    let bits = access(rule.access);
    let kind = rule.kind.map(|kind| match kind {
        DeviceKind::Character => CHARACTER,
        DeviceKind::Block => BLOCK,
    });
    let tests = [
        kind.map(|kind| (KIND, kind)),
        rule.major.map(|major| (MAJOR, major.cast_signed())),
        rule.minor.map(|minor| (MINOR, minor.cast_signed())),
    ];
    let decision = if rule.allow {
        // Strikes off what it allows, and is done when nothing is left.
        let mut steps = vec![with(AND_32, OPEN, !bits), jump(JUMP_NOT_EQUAL_32, OPEN, 0, 2)];
        steps.extend(verdict(1));
        steps
    } else {
        let mut steps = vec![
            move_register(SCRATCH, OPEN),
            with(AND_32, SCRATCH, bits),
            jump(JUMP_EQUAL_32, SCRATCH, 0, 2),
        ];
        steps.extend(verdict(0));
        steps
    };
    let tests: Vec<(u8, i32)> = tests.into_iter().flatten().collect();
    let mut steps = Vec::new();
    for (index, (register, value)) in tests.iter().enumerate() {
        let over = tests.len() - index - 1 + decision.len();
        // At most two more tests and five steps.
        let over = i16::try_from(over).unwrap_or(i16::MAX);
        steps.push(jump(JUMP_NOT_EQUAL_32, *register, *value, over));
    }
    steps.extend(decision);
    steps
}

fn access(access: DeviceAccess) -> i32 {
    let bits = [(access.make, MAKE), (access.read, READ), (access.write, WRITE)];
    bits.into_iter().filter(|(granted, _)| *granted).map(|(_, bit)| bit).sum()
}

fn verdict(value: i32) -> [Instruction; 2] {
    [with(MOVE_32, RESULT, value), Instruction { code: EXIT, ..with(0, 0, 0) }]
}

fn with(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn jump(code: u8, register: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction { offset, ..with(code, register, immediate) }
}

fn move_register(to: u8, from: u8) -> Instruction {
    with(MOVE_32_REGISTER, to | from << 4, 0)
}

/// A word of the context.
fn load(register: u8, offset: i16) -> Instruction {
    jump(LOAD_WORD, register | CONTEXT << 4, 0, offset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a program as the kernel would, on the operations that occur.
    fn run(program: &[Instruction], context: [u32; 3]) -> u32 {
        let mut registers = [0_u32; 7];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let operand = immediate.cast_unsigned();
            at += 1;
            let taken = match code {
                LOAD_WORD => {
                    registers[to] = context[usize::try_from(offset).expect("positive") / 4];
                    false
                }
                MOVE_32 => {
                    registers[to] = operand;
                    false
                }
                MOVE_32_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND_32 => {
                    registers[to] &= operand;
                    false
                }
                SHIFT_RIGHT_32 => {
                    registers[to] >>= operand;
                    false
                }
                JUMP_EQUAL_32 => registers[to] == operand,
                JUMP_NOT_EQUAL_32 => registers[to] != operand,
                EXIT => return registers[0],
                other => panic!("operation {other:#x}"),
            };
            if taken {
                at += usize::try_from(offset).expect("forward");
            }
        }
    }

    /// What the rules mean: for each access the last one that fits.
    fn meant(rules: &[DeviceRule], kind: DeviceKind, device: (u32, u32), wanted: i32) -> bool {
        [MAKE, READ, WRITE].into_iter().filter(|bit| wanted & bit != 0).all(|bit| {
            let fits = |rule: &&DeviceRule| {
                rule.kind.is_none_or(|own| own == kind)
                    && rule.major.is_none_or(|major| major == device.0)
                    && rule.minor.is_none_or(|minor| minor == device.1)
                    && access(rule.access) & bit != 0
            };
            rules.iter().rev().find(fits).is_none_or(|rule| rule.allow)
        })
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let kind = prop_oneof![
            Just(None),
            Just(Some(DeviceKind::Character)),
            Just(Some(DeviceKind::Block))
        ];
        let number = || prop_oneof![Just(None), (0_u32..3).prop_map(Some)];
        let access = any::<(bool, bool, bool)>().prop_map(|(read, write, make)| DeviceAccess {
            read,
            write,
            make,
        });
        (any::<bool>(), kind, number(), number(), access).prop_map(
            |(allow, kind, major, minor, access)| DeviceRule { allow, kind, major, minor, access },
        )
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_say(
            rules in prop::collection::vec(rule(), 0..8),
            character in any::<bool>(),
            device in (0_u32..3, 0_u32..3),
            wanted in 1_i32..8,
        ) {
            let (kind, number) = match character {
                true => (DeviceKind::Character, CHARACTER),
                false => (DeviceKind::Block, BLOCK),
            };
            let context = [(wanted << 16 | number).cast_unsigned(), device.0, device.1];
            let allowed = run(&compile(&rules), context) == 1;
            prop_assert_eq!(allowed, meant(&rules, kind, device, wanted));
        }
    }

    #[test]
    fn the_usual_list_allows_null_and_denies_memory() {
        let mut rules = vec![DeviceRule::DENY_ALL];
        rules.extend(DeviceRule::defaults());
        let program = compile(&rules);
        let ask = |kind: i32, major, minor, wanted: i32| {
            run(&program, [(wanted << 16 | kind).cast_unsigned(), major, minor])
        };
        assert_eq!(ask(CHARACTER, 1, 3, READ | WRITE), 1);
        assert_eq!(ask(CHARACTER, 1, 1, READ), 0);
        assert_eq!(ask(CHARACTER, 1, 1, MAKE), 1);
        assert_eq!(ask(CHARACTER, 1, 1, MAKE | READ), 0);
        assert_eq!(ask(BLOCK, 8, 0, READ), 0);
        assert!(program.len() < 80, "{}", program.len());
    }
}
