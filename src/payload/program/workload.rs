//! What the payload does: the work, its proof, and then requests until told
//! to stop.

use crate::End;
use crate::channel::{Channel, parse};
use crate::http;
use crate::protocol::{
    DATA, MAX_BODY, PAGE, PING, PONG, READY, RELEASE, REPLY, RESULT, STOP, WorkResult, fold,
    one_unit, page_word,
};
use crate::syscall;

/// Runs the named workload to its end; `file` is what `read` reads.
pub fn run(name: &[u8], file: Option<&[u8]>, channel: &mut Channel, end: End) -> ! {
    let mut held = Held(None);
    let result = match work(name, file, &mut held) {
        Ok(result) => result,
        Err(reason) => {
            channel.error(reason);
            channel.drain();
            end.now(1)
        }
    };
    channel.mark(READY);
    channel.send(RESULT, &result.encode());
    if name == b"exit" || name.starts_with(b"exit=") {
        channel.drain();
        end.now(result.code);
    }
    serve(channel, end, name == b"http", held)
}

/// The memory of the work: start and length of a mapping.
struct Held(Option<(*mut u8, usize)>);

impl Held {
    /// Gives it back; whether there was any and it is gone.
    fn release(&mut self) -> bool {
        let Some((start, len)) = self.0.take() else { return false };
        // SAFETY: the mapping that `touch` made, whose pages nobody reads
        // again.
        unsafe { syscall::unmap(start, len) }
    }
}

/// Does the work that stands before `ready`.
fn work(name: &[u8], file: Option<&[u8]>, held: &mut Held) -> Result<WorkResult, &'static str> {
    match name {
        b"pause" | b"exit" | b"http" => Ok(one_unit(1, 0)),
        _ if name.starts_with(b"read=") => read(file.ok_or("no file was named")?),
        _ => measured(name, held),
    }
}

/// Work of a stated amount.
fn measured(name: &[u8], held: &mut Held) -> Result<WorkResult, &'static str> {
    let amount = |kind: &[u8]| name.strip_prefix(kind).and_then(parse).filter(|n| *n > 0);
    if let Some(mib) = amount(b"touch=").or(amount(b"churn=")) {
        touch(mib as usize, held)
    } else if let Some(code) = amount(b"exit=") {
        Ok(one_unit(1, u8::try_from(code).map_err(|_| "no such exit code")?))
    } else if let Some(ms) = amount(b"sleep=") {
        until(syscall::Clock::Monotonic, ms, syscall::sleep);
        Ok(one_unit(ms, 0))
    } else if let Some(ms) = amount(b"spin=") {
        until(syscall::Clock::OwnCpu, ms, |_| core::hint::spin_loop());
        Ok(one_unit(ms, 0))
    } else {
        Err("unknown workload")
    }
}

/// Does `wait` until a clock has gone on by so many milliseconds; it is told
/// how many nanoseconds are left.
fn until(clock: syscall::Clock, ms: u32, wait: impl Fn(u64)) {
    let goal = syscall::now(clock) + u64::from(ms) * 1_000_000;
    loop {
        let left = goal.saturating_sub(syscall::now(clock));
        if left == 0 {
            return;
        }
        wait(left);
    }
}

/// Writes a word to each page of `mib` MiB, then reads all of them back.
fn touch(mib: usize, held: &mut Held) -> Result<WorkResult, &'static str> {
    let len = mib.checked_mul(1024 * 1024).ok_or("more memory than addresses")?;
    let start = syscall::map(len).ok_or("no memory: mmap failed")?;
    held.0 = Some((start, len));
    let pages = len / PAGE;
    let word = |page: usize| start.wrapping_add(page * PAGE).cast::<u64>();
    for page in 0..pages {
        // SAFETY: the page lies inside the mapping. Volatile, since a write
        // that nobody but us reads could be left out.
        unsafe { word(page).write_volatile(page_word(page as u64)) };
    }
    let mut checksum = 0;
    for page in 0..pages {
        // SAFETY: as above.
        checksum = fold(checksum, unsafe { word(page).read_volatile() });
    }
    Ok(WorkResult { count: pages as u64, checksum, code: 0 })
}

/// Reads a file to its end and notes the first word of each page. How long it
/// has to be is known to who asked.
fn read(path: &[u8]) -> Result<WorkResult, &'static str> {
    let mut page = [0_u8; PAGE];
    // One byte stays zero.
    page[..PAGE - 1]
        .get_mut(..path.len())
        .ok_or("the file's path is too long")?
        .copy_from_slice(path);
    let fd = syscall::open_to_read(&page[..=path.len()]).ok_or("the file cannot be opened")?;
    let (mut count, mut checksum) = (0, 0);
    while let Some(len) = fill(fd, &mut page) {
        if len < PAGE {
            return Err("the file ends within a page");
        }
        let [a, b, c, d, e, f, g, h, ..] = page;
        checksum = fold(checksum, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        count += 1;
    }
    Ok(WorkResult { count, checksum, code: 0 })
}

/// Reads until `page` is full or the file ends; `None` at its end.
fn fill(fd: i32, page: &mut [u8; PAGE]) -> Option<usize> {
    let mut done = 0;
    while done < PAGE {
        match syscall::read(fd, &mut page[done..]) {
            Some(n) => done += n,
            None => break,
        }
    }
    (done > 0).then_some(done)
}

/// Answers requests until one says stop or the harness is gone.
fn serve(channel: &mut Channel, end: End, is_http: bool, mut held: Held) -> ! {
    let mut body = [0_u8; MAX_BODY];
    while let Some(request) = channel.receive(&mut body) {
        let bytes = &body[..request.len];
        match request.kind {
            PING => channel.send(PONG, bytes),
            DATA if is_http => {
                let mut answer = http::Answer::new();
                channel.send(REPLY, answer.to(bytes));
            }
            RELEASE if held.release() => channel.send(REPLY, &[]),
            STOP => end.now(bytes.first().copied().unwrap_or(0)),
            _ => channel.error("unknown request"),
        }
    }
    end.now(0)
}
