use super::*;

#[test]
fn every_default_is_an_allowed_value_in_its_stored_spelling() {
    for backend in BackendName::ALL {
        for param in known_params(backend) {
            if let Some(default) = param.default {
                assert_eq!(check(backend, param.name, default).as_deref(), Ok(default));
            }
        }
    }
}

#[test]
fn one_spelling_per_value() {
    let check = |name, value| check(BackendName::Container, name, value).ok();
    assert_eq!(check("memory", "131072K"), Some("128M".to_owned()));
    assert_eq!(check("memory", "2048M"), Some("2G".to_owned()));
    assert_eq!(check("memory", "4194305"), Some("4194305".to_owned()));
    assert_eq!(check("cpus", "0.50"), Some("0.5".to_owned()));
    assert_eq!(check("cpus", "1.0"), Some("1".to_owned()));
    assert_eq!(check("cpus", "10"), Some("10".to_owned()));
    assert_eq!(check("pids", "064"), Some("64".to_owned()));
    for bad in ["", "0", "0.00", ".5", "1.", "1.234", "-1", "1025", "1,5", "+1"] {
        assert_eq!(check("cpus", bad), None, "{bad}");
    }
}

#[test]
fn a_default_is_left_out_unless_every_cell_shows_it() {
    let mut params: Params = "memory=128M;accel=tcg".parse().expect("valid");
    normalise(BackendName::Vm, &mut params);
    assert_eq!(params.to_string(), "accel=tcg;kernel=tuned;machine=microvm");
}

#[test]
fn a_machine_is_stored_under_one_name_and_contradictions_are_refused() {
    let vm = |given: &[(&str, &str)]| {
        checked_params(BackendName::Vm, given).map(|params| params.to_string())
    };
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(vm(&[("firmware", "qboot")]), ok("kernel=tuned;machine=microvm"));
    let seabios = [("machine", "pc"), ("firmware", "seabios"), ("boot", "vmlinux")];
    assert_eq!(vm(&seabios), ok("kernel=tuned;machine=pc"));
    let untuned = [("untuned", "yes"), ("boot", "bzimage"), ("kernel", "distro")];
    assert_eq!(vm(&untuned), ok("machine=q35;untuned=yes"));
    let bios = [("firmware", "seabios")];
    assert_eq!(vm(&bios), ok("firmware=seabios;kernel=tuned;machine=microvm"));
    assert_eq!(vm(&[("machine", "virt")]), ok("kernel=distro;machine=virt"));
    for bad in [
        &[("untuned", "yes"), ("machine", "microvm")][..],
        &[("untuned", "yes"), ("boot", "vmlinux")],
        &[("untuned", "yes"), ("rootfs", "9p")],
        &[("untuned", "yes"), ("machine", "virt")],
        &[("machine", "virt"), ("kernel", "tuned")],
        &[("qemu", "lean"), ("machine", "q35")],
        &[("qemu", "lean"), ("accel", "tcg")],
        &[("qemu", "lean"), ("rootfs", "9p")],
        &[("machine", "virt"), ("rootfs", "9p")],
        &[("start", "clone"), ("rootfs", "virtiofs")],
        &[("firmware", "ovmf"), ("boot", "bzimage"), ("kernel", "distro")],
        &[("firmware", "ovmf"), ("machine", "q35"), ("kernel", "distro")],
        &[("firmware", "ovmf"), ("machine", "q35"), ("boot", "bzimage")],
    ] {
        let error = vm(bad).expect_err("refused");
        assert!(matches!(error, Problem::Contradiction { .. }), "{bad:?}: {error}");
    }
}
