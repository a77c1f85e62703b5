//! `PATH[:REF]`, and names of images.

use std::path::{Path, PathBuf};

/// Splits a text into the path of something that exists and a reference, or
/// gives nothing if no part of it exists. The longest path wins.
pub(super) fn split(text: &str) -> Option<(PathBuf, Option<String>)> {
    let whole = Path::new(text);
    if whole.exists() {
        return Some((whole.to_owned(), None));
    }
    let mut colons: Vec<usize> = text.match_indices(':').map(|(at, _)| at).collect();
    colons.reverse();
    colons.into_iter().find_map(|at| {
        let (path, rest) = (Path::new(&text[..at]), &text[at + 1..]);
        let named = !text[..at].is_empty() && !rest.is_empty();
        (named && path.exists()).then(|| (path.to_owned(), Some(rest.to_owned())))
    })
}

/// The name by which people call an image of the public registry.
pub(super) fn familiar(name: &str) -> &str {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").unwrap_or(short)
}

/// Whether a reference means this name: the whole of it, its familiar form,
/// or its tag alone.
pub(super) fn means(reference: &str, name: &str) -> bool {
    let short = familiar(name);
    let last = short.rsplit('/').next().unwrap_or(short);
    let tag = last.split_once(':').map(|(_, tag)| tag);
    reference == name
        || familiar(reference) == short
        || tag == Some(reference)
        || (tag == Some("latest") && short.strip_suffix(":latest") == Some(familiar(reference)))
}

/// The name of an image that has only a tag, or none, from its file's name.
pub(super) fn name_of(path: &Path, tag: &str) -> String {
    let stem = path.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let stem = stem.unwrap_or_default();
    let cut = [".tar.gz", ".tgz", ".tar"].iter().find_map(|end| stem.strip_suffix(end));
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = cut.unwrap_or(&stem).chars().map(plain).collect();
    let name = if name.is_empty() { "image" } else { &name };
    format!("{name}:{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_that_exists_is_the_path() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        for name in ["a", "a:b"] {
            std::fs::write(at(name), "").expect("written");
        }
        let reference = |text: &str| {
            split(&at(text)).map(|(path, reference)| {
                (path.file_name().expect("name").to_string_lossy().into_owned(), reference)
            })
        };
        let some = |path: &str, reference: Option<&str>| {
            Some((path.to_owned(), reference.map(str::to_owned)))
        };
        assert_eq!(reference("a"), some("a", None));
        assert_eq!(reference("a:b"), some("a:b", None));
        assert_eq!(reference("a:c"), some("a", Some("c")));
        assert_eq!(reference("a:b:c"), some("a:b", Some("c")));
        assert_eq!(reference("a:x/y:c"), some("a", Some("x/y:c")));
        assert_eq!(reference("nothing:c"), None);
    }

    #[test]
    fn references_mean_whole_names_familiar_ones_and_tags() {
        let name = "docker.io/library/busybox:1.36";
        for text in [name, "busybox:1.36", "library/busybox:1.36", "1.36"] {
            assert!(means(text, name), "{text}");
        }
        for text in ["busybox", "1.3", "box:1.36", "latest"] {
            assert!(!means(text, name), "{text}");
        }
        assert!(means("busybox", "busybox:latest") && means("latest", "latest"));
    }

    #[test]
    fn names_come_from_files() {
        assert_eq!(name_of(Path::new("/x/BusyBox.tar.gz"), "latest"), "busybox:latest");
        assert_eq!(name_of(Path::new("/x/a b"), "1"), "a-b:1");
        assert_eq!(name_of(Path::new("/"), "1"), "image:1");
    }
}
