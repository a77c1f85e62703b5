use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::{TempDir, tempdir};

use super::*;
use crate::record::{Ledger, Part};

fn put(root: &TempDir, path: &str, text: &str) -> PathBuf {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().expect("parent")).expect("folders");
    fs::write(&path, text).expect("written");
    path
}

/// A rollup as Linux 6.12 writes it, with numbers in KiB that tell fields
/// apart.
fn rollup(rss: u32, pss: u32, clean: u32, dirty: u32, hugetlb: u32) -> String {
    format!(
        "556ac6d07000-7ffcd6492000 ---p 00000000 00:00 0                          [rollup]\n\
         Rss:                {rss} kB\nPss:                 {pss} kB\nPss_Dirty:           108 kB\n\
         Pss_Anon:            108 kB\nPss_File:             92 kB\nPss_Shmem:             0 kB\n\
         Shared_Clean:       1464 kB\nShared_Dirty:          9 kB\nPrivate_Clean:        {clean} kB\n\
         Private_Dirty:       {dirty} kB\nReferenced:         1612 kB\nAnonymous:           108 kB\n\
         Private_Hugetlb:        {hugetlb} kB\nSwap:                  7 kB\nLocked:                0 kB\n"
    )
}

fn kernel(pid: i32, cgroups: &[PathBuf]) -> MemorySource {
    MemorySource::Kernel { pid, cgroups: cgroups.to_vec() }
}

#[test]
fn all_processes_of_all_groups_are_added_up_once() {
    let root = tempdir().expect("folder");
    put(&root, "proc/10/smaps_rollup", &rollup(1000, 500, 30, 4, 0));
    put(&root, "proc/11/smaps_rollup", &rollup(2000, 700, 50, 6, 1024));
    put(&root, "proc/12/smaps_rollup", &rollup(1, 1, 1, 1, 1));
    let memory = put(&root, "v1/memory/x/memory.usage_in_bytes", "123456\n");
    put(&root, "v1/memory/x/memory.max_usage_in_bytes", "234567\n");
    put(&root, "v1/memory/x/cgroup.procs", "10\n");
    // The same processes by another controller, one of them in a group below.
    put(&root, "v1/pids/x/cgroup.procs", "10\n");
    put(&root, "v1/pids/x/below/cgroup.procs", "11\n");
    let memory = memory.parent().expect("folder").to_owned();
    let groups = [memory, root.path().join("v1/pids/x")];
    let reading = memory_at(&root.path().join("proc"), &kernel(10, &groups));
    assert_eq!(reading.get(Ledger::Rss), Ok(3000 * 1024));
    assert_eq!(reading.get(Ledger::Pss), Ok(1200 * 1024));
    assert_eq!(reading.get(Ledger::Uss), Ok((30 + 4 + 50 + 6 + 1024) * 1024));
    assert_eq!(reading.get(Ledger::Cgroup), Ok(123_456));
    assert_eq!(reading.get(Ledger::Peak), Ok(234_567));
    assert!(reading.get(Ledger::Host).is_err() && !reading.is_exact());
}

#[test]
fn one_unreadable_process_makes_the_sum_absent_and_says_which() {
    let root = tempdir().expect("folder");
    put(&root, "proc/10/smaps_rollup", &rollup(1000, 500, 30, 4, 0));
    put(&root, "x/cgroup.procs", "10\n77\n");
    put(&root, "x/memory.current", "5\n");
    let groups = [root.path().join("x")];
    let read = || memory_at(&root.path().join("proc"), &kernel(10, &groups));
    let reason = "cannot read the memory of process 77: ".to_owned();
    for ledger in [Ledger::Pss, Ledger::Uss, Ledger::Rss] {
        assert_eq!(read().get(ledger), Err(format!("{reason}it has ended")));
    }
    assert_eq!(read().get(Ledger::Cgroup), Ok(5), "the group's ledger needs no process");
    let no_peak = read().get(Ledger::Peak).expect_err("no such file");
    assert!(no_peak.ends_with("memory.peak does not exist: the kernel has it since Linux 5.19"));

    put(&root, "proc/77/smaps_rollup", "");
    assert_eq!(read().get(Ledger::Pss), Err(format!("{reason}it has ended")), "not reaped");
    put(&root, "proc/77/smaps_rollup", &rollup(1, 1, 1, 1, 1).replace("Private_Dirty", "X"));
    let lacks = read().get(Ledger::Pss);
    assert_eq!(lacks, Err(format!("{reason}smaps_rollup has no field Private_Dirty")));
    put(&root, "proc/77/smaps_rollup", "Rss: 1 kB\n");
    assert!(read().get(Ledger::Pss).is_err());
    let without = rollup(1, 1, 1, 1, 1);
    let without: String = without
        .lines()
        .filter(|line| !line.contains("Hugetlb"))
        .map(|l| format!("{l}\n"))
        .collect();
    put(&root, "proc/77/smaps_rollup", &without);
    assert_eq!(read().get(Ledger::Uss), Ok(36 * 1024), "no huge pages in this kernel");
}

#[test]
fn a_group_that_tells_nothing_is_an_error_and_not_a_zero() {
    let root = tempdir().expect("folder");
    let proc = root.path().join("proc");
    let group = root.path().join("x");
    let read = || memory_at(&proc, &kernel(10, std::slice::from_ref(&group)));
    let absent = read();
    assert!(absent.get(Ledger::Pss).is_err_and(|reason| reason.contains("cgroup.procs")));
    assert!(absent.get(Ledger::Cgroup).is_err_and(|reason| reason.contains("no control group")));
    put(&root, "x/cgroup.procs", "");
    put(&root, "x/memory.current", "much\n");
    put(&root, "x/memory.peak", "99\n");
    let empty = read();
    assert!(empty.get(Ledger::Pss).is_err_and(|reason| reason.starts_with("no process is left")));
    assert!(empty.get(Ledger::Cgroup).is_err_and(|reason| reason.contains("`much`")));
    assert_eq!(empty.get(Ledger::Peak), Ok(99));
    put(&root, "x/cgroup.procs", "0\n");
    assert!(read().get(Ledger::Pss).is_err_and(|reason| reason.contains("process we can see")));

    let alone = memory_at(&proc, &kernel(10, &[]));
    assert!(alone.get(Ledger::Cgroup).is_err());
    put(&root, "proc/10/smaps_rollup", &rollup(8, 4, 2, 1, 0));
    assert_eq!(memory_at(&proc, &kernel(10, &[])).get(Ledger::Pss), Ok(4096));
}

#[test]
fn sums_keep_the_reason_of_the_first_gap() {
    let exact = |pss: f64, uss: f64| Reading::exact(&[(Ledger::Pss, pss), (Ledger::Uss, uss)]);
    let sum = Reading::sum([exact(1.0, 2.0), exact(10.0, 20.0)].into_iter());
    assert_eq!((sum.get(Ledger::Pss), sum.get(Ledger::Uss)), (Ok(11), Ok(22)));
    assert!(sum.is_exact());
    let gap = Reading::exact(&[(Ledger::Uss, 5.0)]);
    let sum = Reading::sum([exact(1.0, 2.0), gap, exact(1.0, 2.0)].into_iter());
    assert_eq!(sum.get(Ledger::Pss), Err("pss was not read".to_owned()));
    assert_eq!(sum.get(Ledger::Uss), Ok(9));
    assert!(Reading::sum(std::iter::empty()).get(Ledger::Pss).is_err(), "nothing is not zero");
}

#[test]
fn memory_is_at_rest_when_no_ledger_moves_by_half_a_percent() {
    let reading = |pss: f64, cgroup: f64, peak: f64| {
        Reading::exact(&[(Ledger::Pss, pss), (Ledger::Cgroup, cgroup), (Ledger::Peak, peak)])
    };
    let before = reading(1000.0, 2000.0, 1.0);
    assert!(reading(1005.0, 1990.0, 999.0).agrees_with(&before));
    assert!(!reading(1006.0, 2000.0, 1.0).agrees_with(&before));
    assert!(!reading(1000.0, 1989.0, 1.0).agrees_with(&before));
    let zero = reading(0.0, 0.0, 0.0);
    assert!(zero.agrees_with(&zero));
    assert!(!Reading::exact(&[(Ledger::Pss, 1000.0)]).agrees_with(&before), "a ledger went away");
}

#[test]
fn the_host_ledger_leaves_out_what_can_be_dropped() {
    let root = tempdir().expect("folder");
    let fields = [
        ("MemTotal", 10_000),
        ("MemFree", 1000),
        ("MemAvailable", 0),
        ("Buffers", 200),
        ("Cached", 3000),
        ("SwapCached", 0),
        ("Active", 0),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("Mapped", 0),
        ("Shmem", 500),
        ("Slab", 900),
        ("SReclaimable", 400),
        ("SUnreclaim", 500),
        ("Committed_AS", 0),
        ("VmallocTotal", 0),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
    ];
    let text = |fields: &[(&str, i32)]| {
        fields.iter().map(|(name, kib)| format!("{name}: {kib} kB\n")).collect::<String>()
    };
    put(&root, "meminfo", &text(&fields));
    // 10000 - 1000 - 200 - 3000 - 400 + 500
    assert_eq!(meminfo::in_use(root.path()), Ok(5900 * 1024));
    for missing in ["Shmem", "SReclaimable", "MemFree"] {
        let rest: Vec<_> = fields.into_iter().filter(|(name, _)| *name != missing).collect();
        put(&root, "meminfo", &text(&rest));
        assert!(meminfo::in_use(root.path()).is_err(), "{missing}");
    }
    put(&root, "meminfo", &text(&fields).replace("10000", "100"));
    assert!(meminfo::in_use(root.path()).is_err(), "never below zero");
    assert!(meminfo::in_use(Path::new("/nonexistent")).is_err());
}

#[test]
fn this_process_can_be_read_on_this_kernel() {
    let pid = i32::try_from(std::process::id()).expect("a pid");
    let before = memory(&kernel(pid, &[]));
    let size = |reading: &Reading, ledger| reading.get(ledger).expect("readable");
    assert!(size(&before, Ledger::Uss) <= size(&before, Ledger::Pss));
    assert!(size(&before, Ledger::Pss) <= size(&before, Ledger::Rss));
    assert!(before.took() > Duration::ZERO, "its cost is known");

    let added: usize = 32 * 1024 * 1024;
    let block = std::hint::black_box(vec![1_u8; added]);
    let after = memory(&kernel(pid, &[]));
    for ledger in [Ledger::Pss, Ledger::Uss, Ledger::Rss] {
        let grown = size(&after, ledger).saturating_sub(size(&before, ledger));
        assert!(grown > added as u64 / 2, "{}: {grown}", ledger.as_str());
    }
    assert!(!after.agrees_with(&before) && after.agrees_with(&after));
    drop(block);

    let host = host_memory().expect("readable");
    assert!(host > size(&before, Ledger::Uss), "the host holds at least this process");
}

const KIB: u64 = 1024;

/// A part of what QEMU 7.2 had mapped, with the tuned kernel under TCG.
const QEMU: &str = include_str!("../../tests/golden/smaps/qemu.txt");

fn shape() -> Shape {
    let images = ["/home/reader/.cache/unladen/guest/vmlinux", "-m", "128M"];
    Shape { memory: 128 * 1024 * KIB, images: images.map(PathBuf::from).to_vec() }
}

fn parts_of(smaps: &str, shape: &Shape) -> Result<Parts, String> {
    let root = tempdir().expect("folder");
    put(&root, "10/smaps", smaps);
    parts::read(root.path(), 10, &[], shape).map_err(|error| error.to_string())
}

#[test]
fn each_mapping_of_a_machine_belongs_to_one_part() {
    let found = parts_of(QEMU, &shape()).expect("read");
    let rss = |part| found[&part].rss / KIB;
    assert_eq!(rss(Part::GuestRam), 28_672);
    assert_eq!(rss(Part::Translation), 16_276);
    assert_eq!(rss(Part::Image), 12_732);
    assert_eq!(rss(Part::Vmm), 3720 + 2712 + 1028 + 1044 + 20);
    let field = |name: &str| -> u64 {
        let lines = QEMU.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().expect("KiB")).sum()
    };
    assert_eq!(found.values().map(|size| size.rss).sum::<u64>(), field("Rss:") * KIB);
    assert_eq!(found.values().map(|size| size.pss).sum::<u64>(), field("Pss:") * KIB);
}

#[test]
fn memory_of_a_snapshot_is_the_guests_and_other_files_are_text() {
    let memory = "7f0000000000-7f0008000000 rw-p 00000000 fe:00 7 ";
    let fields = "\nRss: 40 kB\nPss: 30 kB\n";
    let one = |line: &str, part: Part| {
        let found = parts_of(&format!("{line}{fields}"), &shape()).expect("read");
        assert_eq!(found[&part], PartSize { pss: 30 * KIB, rss: 40 * KIB }, "{line}");
    };
    one(&format!("{memory}/cache/1.memory"), Part::GuestRam);
    one(&memory.replace("rw-p", "rw-s"), Part::GuestRam);
    one(&memory.replace("rw-p", "rwxp"), Part::Translation);
    one(&memory.replace("rw-p", "r--p"), Part::Vmm);
    one(
        "7f0000000000-7f0000001000 r-xs 00000000 00:01 9 /memfd:tcg-jit (deleted)",
        Part::Translation,
    );
    one(
        "7f0000000000-7f0000001000 rw-s 00000000 00:01 9 /memfd:tcg-jit (deleted)",
        Part::Translation,
    );
    one("7f0000000000-7f0000001000 rw-p 00000000 fe:00 9 /usr/lib/libc.so.6", Part::Text);
    one("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 [heap]", Part::Vmm);
}

#[test]
fn parts_that_cannot_be_read_are_missing() {
    let error = parts_of(&QEMU.replace("Pss:", "Xss:"), &shape()).expect_err("no PSS");
    assert_eq!(error, "cannot read the memory of process 10: smaps has no field Pss");
    let root = tempdir().expect("folder");
    assert!(parts::read(root.path(), 10, &[], &shape()).is_err());
    assert!(parts(&MemorySource::Exact(Vec::new()), &shape()).is_err());
}
