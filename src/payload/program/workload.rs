//! What the payload does: the work, its proof, and then requests until told
//! to stop.

use crate::End;
use crate::channel::{Channel, parse};
use crate::http;
use crate::protocol::{
    DATA, MAX_BODY, PAGE, PING, PONG, READY, REPLY, RESULT, STOP, WorkResult, fold, page_word,
};
use crate::syscall;

/// Runs the named workload to its end.
pub fn run(name: &[u8], channel: &mut Channel, end: End) -> ! {
    let result = match work(name) {
        Ok(result) => result,
        Err(reason) => {
            channel.error(reason);
            end.now(1)
        }
    };
    channel.mark(READY);
    channel.send(RESULT, &result.encode());
    if name == b"exit" {
        end.now(result.code);
    }
    serve(channel, end, name == b"http")
}

/// Does the work that stands before `ready`.
fn work(name: &[u8]) -> Result<WorkResult, &'static str> {
    match name {
        b"pause" | b"exit" | b"http" => {
            Ok(WorkResult { count: 1, checksum: page_word(0), code: 0 })
        }
        _ => {
            let mib = name.strip_prefix(b"touch=").and_then(parse).ok_or("unknown workload")?;
            touch(mib as usize)
        }
    }
}

/// Writes a word to each page of `mib` MiB, then reads all of them back.
fn touch(mib: usize) -> Result<WorkResult, &'static str> {
    let len = mib.checked_mul(1024 * 1024).ok_or("more memory than addresses")?;
    let start = syscall::map(len).ok_or("no memory: mmap failed")?;
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

/// Answers requests until one says stop or the harness is gone.
fn serve(channel: &mut Channel, end: End, is_http: bool) -> ! {
    let mut body = [0_u8; MAX_BODY];
    while let Some(request) = channel.receive(&mut body) {
        let bytes = &body[..request.len];
        match request.kind {
            PING => channel.send(PONG, bytes),
            DATA if is_http => {
                let mut answer = http::Answer::new();
                channel.send(REPLY, answer.to(bytes));
            }
            STOP => end.now(bytes.first().copied().unwrap_or(0)),
            _ => channel.error("unknown request"),
        }
    }
    end.now(0)
}
