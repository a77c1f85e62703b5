use super::*;
use crate::record::{BackendName, Does};
use crate::spec::{Spec, known_backend};

fn added(text: &str) -> Result<Systems, String> {
    let mut systems = Systems::default();
    systems.add("mine.toml", text).map_err(|error| error.to_string())?;
    Ok(systems)
}

#[test]
fn the_shipped_text_is_valid_and_says_what_every_backend_does() {
    let systems = Systems::shipped().expect("valid");
    for own in BackendName::ALL {
        let does = systems.does(own.as_str());
        assert_eq!(does.is_none(), own == BackendName::Mock, "{own}");
    }
    for system in systems.all() {
        let Does { cgroup, seccomp, network, logging, daemon, .. } = &system.does;
        for said in [cgroup, seccomp, network, logging, daemon] {
            assert!(!said.is_empty(), "{}: a column of the table is empty", system.name);
        }
        assert!(!system.about.is_empty(), "{}", system.name);
    }
    assert_eq!(known().all().count(), systems.all().count());
}

#[test]
fn an_oci_runtime_is_three_lines() {
    let text = "[systems.mine]\ndriver = \"oci\"\nbinary = [\"mine\"]\n";
    let systems = added(text).expect("valid");
    let mine = systems.get("mine").expect("there");
    assert_eq!(mine.channel, Channel::Inherited(3));
    let start = mine.detached.as_ref().expect("a command").join(" ");
    assert_eq!(
        start,
        "{bin} --root {state} run --detach --pid-file {files}/pid --preserve-fds 1 --bundle {files} {id}"
    );
    assert_eq!(mine.delete, [["{bin}", "--root", "{state}", "delete", "--force", "{id}"]]);
    assert!(mine.params.iter().any(|param| param.name == "memory"));
}

#[test]
fn a_users_system_replaces_one_of_the_same_name() {
    let mut systems = Systems::shipped().expect("valid");
    let count = systems.all().count();
    let text = "[systems.runc]\ndriver = \"oci\"\nbinary = [\"/opt/runc\"]\n";
    systems.add("mine.toml", text).expect("valid");
    assert_eq!(systems.all().count(), count);
    assert_eq!(systems.get("runc").expect("there").binary, ["/opt/runc"]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let oci = "driver = \"oci\"\nbinary = [\"x\"]\n";
    for (text, words) in [
        ("[systems.Mine]\ndriver = \"oci\"\nbinary = [\"x\"]".to_owned(), "cannot be the name"),
        (format!("[systems.vm]\n{oci}"), "own backend"),
        (format!("[systems.x]\n{oci}chanel = \"fd:3\""), "unknown field `chanel`"),
        (format!("[systems.x]\n{oci}channel = \"fd:9\""), "unknown channel"),
        (format!("[systems.x]\n{oci}options = [\"{{plattform}}\"]"), "unknown token {plattform}"),
        ("[systems.x]\ndriver = \"sandbox\"\nbinary = [\"x\"]".to_owned(), "needs `attached`"),
        ("[systems.x]\ndriver = \"what\"\nbinary = [\"x\"]".to_owned(), "unknown variant"),
        (
            "[systems.x]\ndriver = \"sandbox\"\nbinary = [\"x\"]\ndetached = [\"x\"]".to_owned(),
            "needs `delete`",
        ),
        (
            format!(
                "[systems.x]\n{oci}[systems.x.params.memory]\nvalues = [\"1\"]\ndefault = \"1\""
            ),
            "cannot be the name of a parameter",
        ),
        (
            format!("[systems.x]\n{oci}[systems.x.params.p]\nvalues = [\"1\"]\ndefault = \"2\""),
            "none of its values",
        ),
        (
            format!("[systems.x]\n{oci}[[systems.x.files]]\nname = \"../x\"\ntext = \"\""),
            "leads elsewhere",
        ),
    ] {
        let error = added(&format!("# a comment\n{text}\n")).expect_err(&text);
        assert!(error.starts_with("mine.toml:") && error.contains(words), "{text}: {error}");
        assert!(!error.starts_with("mine.toml:1:"), "{error}");
    }
}

#[test]
fn a_spec_names_a_system_like_any_backend_and_its_parameters_are_checked() {
    assert_eq!(known_backend("no-such-system"), None);
    let spec = |text: &str| Spec::parse("s.toml", text).map_err(|error| error.to_string());
    let good = "[[cells]]\nbackend = \"runsc\"\nmemory = [\"pause\"]\n";
    let cell = &spec(good).expect("valid").cells[0];
    // A platform that is not named is shown all the same.
    assert_eq!(cell.key.label(), "runsc platform=ptrace");
    let bad = "[[cells]]\nbackend = \"rnuc\"\nstartup = [\"exit\"]\n";
    let error = spec(bad).expect_err("unknown");
    assert!(error.contains("runc"), "{error}");
    let bad =
        "[[cells]]\nbackend = \"runsc\"\nparams = { platform = \"x\" }\nstartup = [\"exit\"]\n";
    let error = spec(bad).expect_err("unknown");
    assert!(error.contains("ptrace"), "{error}");
}
