//! From verdicts to a classic BPF program.
//!
//! The program is written from its end to its start, so that every jump's
//! target stands when the jump is made. Numbers are found by a tree of
//! comparisons, split where both sides hold about as many system calls: when
//! a filter is loaded, the kernel runs it once for every call there is
//! (`seccomp_cache_prepare` in kernel/seccomp.c), so the average path is what
//! loading costs.

use std::collections::HashMap;

use super::SeccompError;
use super::rules::{Condition, KILL_THREAD, Rule, Rules, Segment, Test, Verdict};
use crate::sys::spawn::Instruction;

/// The kernel takes no more (`BPF_MAXINSNS`, include/uapi/linux/bpf_common.h).
pub(super) const MAXIMUM: usize = 4096;

/// Opcodes of classic BPF (include/uapi/linux/bpf_common.h).
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Numbers of system calls are below this for all that the kernel runs a new
/// filter for, nearly.
const USUAL: u32 = 512;

/// How far a conditional jump reaches.
const REACH: usize = 255;

/// A place in the program, counted from its end.
type Place = usize;

/// Writes the program of these rules.
pub(super) fn write(rules: &Rules) -> Result<Vec<Instruction>, SeccompError> {
    let mut writer =
        Writer { reversed: Vec::new(), default: rules.default, returns: HashMap::new() };
    // The native architecture comes last in writing, so first in the program.
    let mut starts = Vec::new();
    for table in rules.tables.iter().rev() {
        let tree = writer.tree(&table.segments, u32::MAX);
        starts.push((table.audit, writer.load(NUMBER, tree)));
    }
    let mut next = writer.give(KILL_THREAD);
    for (audit, start) in starts {
        next = writer.branch(IF_EQUAL, audit, start, next);
    }
    writer.load(ARCHITECTURE, next);
    let Writer { mut reversed, .. } = writer;
    if reversed.len() > MAXIMUM {
        return Err(SeccompError::TooLong { instructions: reversed.len() });
    }
    reversed.reverse();
    Ok(reversed)
}

struct Writer {
    reversed: Vec<Instruction>,
    default: u32,
    /// The last place of each `return`.
    returns: HashMap<u32, Place>,
}

impl Writer {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Place {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// Instructions between the next one to be written and `place`.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - place - 1
    }

    /// A `return` within reach.
    fn give(&mut self, value: u32) -> Place {
        if let Some(place) = self.returns.get(&value)
            && self.distance(*place) < REACH / 2
        {
            return *place;
        }
        let place = self.push(RETURN, 0, 0, value);
        self.returns.insert(value, place);
        place
    }

    /// A place from which control comes to `target`, right here.
    fn detour(&mut self, target: Place) -> Place {
        let there = self.reversed[target];
        if there.code == RETURN {
            let place = self.push(RETURN, 0, 0, there.k);
            self.returns.insert(there.k, place);
            return place;
        }
        // A program has far fewer instructions than fit.
        let distance = u32::try_from(self.distance(target)).unwrap_or(u32::MAX);
        self.push(JUMP, 0, 0, distance)
    }

    /// A place for `target` that is in reach after `more` instructions.
    fn near(&mut self, target: Place, more: usize) -> Place {
        if self.distance(target) + more > REACH { self.detour(target) } else { target }
    }

    /// A conditional jump.
    fn branch(&mut self, code: u16, k: u32, yes: Place, no: Place) -> Place {
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        let offset = |place| u8::try_from(self.distance(place)).unwrap_or(u8::MAX);
        let (jt, jf) = (offset(yes), offset(no));
        self.push(code, jt, jf, k)
    }

    /// Makes `next` the instruction that follows.
    fn continue_at(&mut self, next: Place) {
        if self.distance(next) != 0 {
            self.detour(next);
        }
    }

    /// Loads a word, then goes on at `next`.
    fn load(&mut self, offset: u32, next: Place) -> Place {
        self.continue_at(next);
        self.push(LOAD_WORD, 0, 0, offset)
    }

    /// Finds the segment of a number; the last one ends at `end`.
    fn tree(&mut self, segments: &[Segment], end: u32) -> Place {
        match segments {
            [] => self.give(self.default),
            [one] => self.leaf(one),
            // An island: one number with the same on both sides.
            [before, island, after]
                if before.verdict == after.verdict
                    && matches!(before.verdict, Verdict::Always(_))
                    && after.start == island.start + 1 =>
            {
                let no = self.leaf(before);
                let yes = self.leaf(island);
                self.branch(IF_EQUAL, island.start, yes, no)
            }
            _ => {
                let middle = middle(segments, end);
                let split = segments[middle].start;
                let yes = self.tree(&segments[middle..], end);
                let no = self.tree(&segments[..middle], split);
                self.branch(IF_GREATER_OR_EQUAL, split, yes, no)
            }
        }
    }

    fn leaf(&mut self, segment: &Segment) -> Place {
        match &segment.verdict {
            Verdict::Always(value) => self.give(*value),
            Verdict::ByArguments(rules) => self.rules(rules, segment.wide),
        }
    }

    /// The first rule whose conditions hold.
    fn rules(&mut self, rules: &[Rule], wide: bool) -> Place {
        let mut next = self.give(self.default);
        let mut rest = rules;
        while let Some(last) = rest.last() {
            let group = group(rest, wide);
            if group.is_empty() {
                next = self.rule(last, wide, next);
                rest = &rest[..rest.len() - 1];
            } else {
                next = self.one_of(group, wide, next);
                rest = &rest[..rest.len() - group.len()];
            }
        }
        next
    }

    fn rule(&mut self, rule: &Rule, wide: bool, no: Place) -> Place {
        let mut yes = self.give(rule.value);
        for condition in rule.conditions.iter().rev() {
            yes = self.condition(condition, wide, yes, no);
        }
        yes
    }

    /// Rules of which each is one equality, all on one argument, with one
    /// upper half and one outcome: the argument is loaded once.
    fn one_of(&mut self, group: &[Rule], wide: bool, no: Place) -> Place {
        let Some((index, value)) = group.first().and_then(|rule| equality(rule, wide)) else {
            return no;
        };
        let yes = self.give(group[0].value);
        let mut next = no;
        for (_, value) in group.iter().rev().filter_map(|rule| equality(rule, wide)) {
            next = self.branch(IF_EQUAL, low(value), yes, next);
        }
        next = self.load(low_half(index), next);
        if wide {
            next = self.branch(IF_EQUAL, high(value), next, no);
            next = self.load(high_half(index), next);
        }
        next
    }

    /// Compares an argument: the upper half decides, or else the lower.
    fn condition(&mut self, condition: &Condition, wide: bool, yes: Place, no: Place) -> Place {
        let index = condition.index;
        let (code, value, yes, no) = match condition.test {
            Test::Equal { mask, value } => {
                let mut next = self.masked(low_half(index), low(mask), low(value), yes, no);
                if wide {
                    next = self.masked(high_half(index), high(mask), high(value), next, no);
                }
                return next;
            }
            Test::NotEqual(value) => {
                let test = Test::Equal { mask: u64::MAX, value };
                return self.condition(&Condition { index, test }, wide, no, yes);
            }
            Test::Greater(value) => (IF_GREATER, value, yes, no),
            Test::GreaterOrEqual(value) => (IF_GREATER_OR_EQUAL, value, yes, no),
            Test::Less(value) => (IF_GREATER_OR_EQUAL, value, no, yes),
            Test::LessOrEqual(value) => (IF_GREATER, value, no, yes),
        };
        let mut next = self.branch(code, low(value), yes, no);
        next = self.load(low_half(index), next);
        if wide {
            next = self.branch(IF_EQUAL, high(value), next, no);
            next = self.branch(IF_GREATER, high(value), yes, next);
            next = self.load(high_half(index), next);
        }
        next
    }

    /// Compares one half under a mask.
    fn masked(&mut self, offset: u32, mask: u32, value: u32, yes: Place, no: Place) -> Place {
        if mask == 0 {
            return yes;
        }
        let mut next = self.branch(IF_EQUAL, value, yes, no);
        if mask != u32::MAX {
            next = self.push_before(AND, mask, next);
        }
        self.load(offset, next)
    }

    /// An instruction without a jump.
    fn push_before(&mut self, code: u16, k: u32, next: Place) -> Place {
        self.continue_at(next);
        self.push(code, 0, 0, k)
    }
}

/// The rules at the end of the list that `one_of` can take.
fn group(rules: &[Rule], wide: bool) -> &[Rule] {
    let Some(last) = rules.last() else { return rules };
    let Some((index, value)) = equality(last, wide) else { return &[] };
    let fits = |rule: &&Rule| {
        rule.value == last.value
            && equality(rule, wide)
                .is_some_and(|(other, number)| other == index && high(number) == high(value))
    };
    let count = rules.iter().rev().take_while(fits).count();
    &rules[rules.len() - count..]
}

/// The argument and value of a rule that is a single equality of all bits
/// that there are.
fn equality(rule: &Rule, wide: bool) -> Option<(u32, u64)> {
    let all = if wide { u64::MAX } else { u64::from(u32::MAX) };
    match rule.conditions[..] {
        [Condition { index, test: Test::Equal { mask, value } }] if mask == all => {
            Some((index, value))
        }
        _ => None,
    }
}

/// Where to split: both sides hold about as many system calls.
fn middle(segments: &[Segment], end: u32) -> usize {
    let at = |start: u32| u64::from(start.min(USUAL));
    let (first, last) = (at(segments[0].start), at(end));
    let imbalance = |place: usize| {
        // Each segment weighs at least one, so that those of rare numbers
        // are balanced too.
        let left = at(segments[place].start) - first + place as u64;
        let right = last - at(segments[place].start) + (segments.len() - place) as u64;
        left.abs_diff(right)
    };
    (1..segments.len()).min_by_key(|place| imbalance(*place)).unwrap_or(1)
}

fn low_half(index: u32) -> u32 {
    FIRST_ARGUMENT + 8 * index + if cfg!(target_endian = "little") { 0 } else { 4 }
}

fn high_half(index: u32) -> u32 {
    FIRST_ARGUMENT + 8 * index + if cfg!(target_endian = "little") { 4 } else { 0 }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}
