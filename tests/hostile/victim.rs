//! A process that stands for the host. Its secret is in the variable `SECRET`;
//! it says where in its memory, and then answers questions, one a line, until
//! the end of its input.

use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::sys;

pub fn run() {
    let secret = std::env::var("SECRET").unwrap_or_default();
    let apart = sys::step_aside().is_ok();
    // Without privileges it has the names of the host, and no one asks.
    let shared = if apart { share(&secret) } else { -1 };
    let listener = if apart { listen() } else { None };
    println!("{}", secret.as_ptr().addr());
    for question in std::io::stdin().lock().lines().map_while(Result::ok) {
        match question.as_str() {
            "host name" => println!("{}", sys::host_name()),
            "heard" => println!("{}", listener.as_ref().map_or_else(String::new, hear)),
            "mtu" => println!("{}", sys::mtu()),
            _ => println!("?"),
        }
    }
    if apart {
        // SAFETY: no pointers. IPC_RMID.
        unsafe { sys::shmctl(shared, 0, std::ptr::null_mut()) };
    }
}

/// At an abstract address of its network.
fn listen() -> Option<UnixListener> {
    let address = SocketAddr::from_abstract_name("unladen-hostile").ok()?;
    let listener = UnixListener::bind_addr(&address).ok()?;
    listener.set_nonblocking(true).ok()?;
    Some(listener)
}

/// What somebody has sent who has connected.
fn hear(listener: &UnixListener) -> String {
    let mut line = String::new();
    if let Ok((stream, _)) = listener.accept() {
        let _ = BufReader::new(stream).read_line(&mut line);
    }
    line.trim().to_owned()
}

/// Puts the secret into System V memory.
fn share(secret: &str) -> i32 {
    // SAFETY: the segment is longer than the secret. IPC_CREAT.
    unsafe {
        let id = sys::shmget(sys::SHARED, 4096, 0o1600);
        let memory = sys::shmat(id, std::ptr::null(), 0);
        if memory.addr() != usize::MAX {
            std::ptr::copy_nonoverlapping(secret.as_ptr(), memory.cast(), secret.len().min(4095));
        }
        id
    }
}
