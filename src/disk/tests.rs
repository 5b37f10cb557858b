use super::*;

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test may look at its files directly"
)]
fn a_lock_knows_when_its_folder_was_replaced() {
    let lab = tempfile::tempdir().unwrap();
    let folder = lab.path().join("f");
    std::fs::create_dir(&folder).unwrap();
    let lock = SystemDisk.try_lock(&folder.join("lock")).unwrap().unwrap();
    assert!(lock.is_in_place());
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(!lock.is_in_place());
    std::fs::create_dir(&folder).unwrap();
    let other = SystemDisk.try_lock(&folder.join("lock")).unwrap().unwrap();
    assert!(other.is_in_place() && !lock.is_in_place());
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "tests look at the files from outside"
)]
fn a_file_is_kept_under_another_name_whatever_stands_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let keep = || {
        SystemDisk
            .keep_as(&path("a"), &path("b"), 100, 0o600)
            .unwrap();
    };
    std::fs::write(path("a"), "one").unwrap();
    keep();
    // The second time they are one file already.
    keep();
    SystemDisk.write_atomic(&path("a"), b"two", 0o600).unwrap();
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    assert_eq!((read("a"), read("b")), ("two".into(), "one".into()));
    keep();
    assert_eq!((read("a"), read("b")), ("two".into(), "two".into()));
    assert_eq!(SystemDisk.list(folder.path()).unwrap(), ["a", "b"]);
    let gone = SystemDisk.keep_as(&path("x"), &path("b"), 100, 0o600);
    assert!(gone.unwrap_err().is_not_found());
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "tests look at the files from outside"
)]
fn many_files_are_read_as_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = ["a", "gone", "empty", "long", "large", "folder", "last"]
        .map(str::to_owned)
        .into();
    for (name, length) in [("a", 1), ("empty", 0), ("long", 9_999), ("large", 10_001)] {
        std::fs::write(folder.path().join(name), vec![b'x'; length]).unwrap();
    }
    std::fs::write(folder.path().join("last"), "last").unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let mut at = 0;
    SystemDisk.read_each(folder.path(), &names, 10_000, &mut |name, read| {
        assert_eq!(name, names[at]);
        at += 1;
        let path = folder.path().join(name);
        match (read, SystemDisk.read(&path, 10_000)) {
            (Ok(bytes), Ok(expected)) => assert_eq!(bytes, expected),
            (Err(error), Err(expected)) => {
                assert_eq!(error.to_string(), expected.to_string());
            }
            (one, other) => panic!("{name}: {one:?}, {other:?}"),
        }
        name != "folder"
    });
    assert_eq!(names[at], "last", "nothing is read once it is enough");
    let mut refused = Vec::new();
    let nowhere = folder.path().join("nowhere");
    SystemDisk.read_each(&nowhere, &names, 10_000, &mut |_, read| {
        refused.push(read.is_err_and(|error| error.is_not_found()));
        refused.len() < 2
    });
    assert_eq!(refused, [true, true]);
}

#[test]
fn temporary_names_are_known_again() {
    for name in ["head.json", ".env", "a.1.2.tmp", "größe", ""] {
        let temporary = TemporaryName::new(name.to_owned());
        assert_eq!(
            TemporaryName::parse(&temporary.to_string()),
            Some(temporary)
        );
    }
    for other in [
        ".tmp",
        "x.1.2.tmp",
        ".x.1.tmp",
        ".x.a.2.tmp",
        ".x.1.+2.tmp",
        ".x.01.2.tmp",
        ".x.1.2",
        "head.json",
    ] {
        assert_eq!(TemporaryName::parse(other), None, "{other}");
    }
}
