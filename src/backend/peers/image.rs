//! The root file system as an image that every engine loads: an archive as
//! `docker save` writes it, with one layer
//! (<https://github.com/moby/moby/blob/v20.10.24/image/spec/v1.2.md>, "Combined
//! Image JSON + Filesystem Changeset Format").

use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::container::PAYLOAD_PATH;

/// Writes an image of this name with the payload and empty mount points. The
/// same payload gives the same bytes.
pub(super) fn write(path: &Path, name: &str, payload: &Path) -> io::Result<()> {
    let layer = layer(&fs::read(payload)?)?;
    let digest = hex(&layer);
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": machine,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": [PAYLOAD_PATH], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        "history": [{ "created": "1970-01-01T00:00:00Z" }],
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", hex(&config));
    let layer_name = format!("{digest}/layer.tar");
    let manifest = json!([{
        "Config": config_name,
        "RepoTags": [name],
        "Layers": [layer_name],
    }]);
    let mut archive = tar::Builder::new(Vec::new());
    file(&mut archive, &config_name, &config, 0o644)?;
    folder(&mut archive, &format!("{digest}/"))?;
    file(&mut archive, &layer_name, &layer, 0o644)?;
    file(&mut archive, "manifest.json", &serde_json::to_vec(&manifest)?, 0o644)?;
    fs::write(path, archive.into_inner()?)
}

/// The one layer.
fn layer(payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for name in ["dev/", "proc/", "sys/", "tmp/"] {
        folder(&mut layer, name)?;
    }
    file(&mut layer, PAYLOAD_PATH.trim_start_matches('/'), payload, 0o755)?;
    layer.into_inner()
}

fn folder(archive: &mut tar::Builder<Vec<u8>>, name: &str) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    archive.append_data(&mut header, name, io::empty())
}

fn file(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &str,
    content: &[u8],
    mode: u32,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_payload_gives_the_same_image() {
        let folder = tempfile::tempdir().expect("folder");
        let payload = folder.path().join("payload");
        fs::write(&payload, b"program").expect("written");
        let (one, two) = (folder.path().join("one.tar"), folder.path().join("two.tar"));
        for path in [&one, &two] {
            write(path, "localhost/unladen-payload:test", &payload).expect("an image");
        }
        assert_eq!(fs::read(&one).expect("read"), fs::read(&two).expect("read"));
    }
}
