//! The faulty disk itself: what it says a crash leaves is what a file system may leave.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use faulty_disk::{Call, Failure, Fault, FaultyDisk, Keep, Tree, write_tree};
use storage::disk::{Disk, File, read_full_at, write_all_at};
use tempfile::TempDir;

fn disk() -> (TempDir, FaultyDisk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(folder.path());
    (folder, disk)
}

fn append(file: &dyn File, bytes: &[u8]) {
    write_all_at(file, &[bytes], file.len().unwrap()).unwrap();
}

fn content<'a>(tree: &'a Tree, name: &str) -> Option<&'a [u8]> {
    tree.get(Path::new(name))?.as_deref()
}

#[test]
fn what_was_synced_is_left_and_the_rest_as_asked() {
    let (folder, disk) = disk();
    let file = disk.open(&folder.path().join("a"), true).unwrap();
    append(file.as_ref(), b"synced ");
    file.sync().unwrap();
    assert_eq!(
        content(&disk.image().tree(Keep::None), "a"),
        None,
        "no name"
    );
    disk.sync_dir(folder.path()).unwrap();
    append(file.as_ref(), b"written");
    let image = disk.image();
    assert_eq!(content(&image.tree(Keep::None), "a"), Some(&b"synced "[..]));
    let all = b"synced written";
    assert_eq!(content(&image.tree(Keep::All), "a"), Some(&all[..]));
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), all);

    let mut seen = HashSet::new();
    for seed in 0..100 {
        let tree = image.tree(Keep::Some(seed));
        assert_eq!(tree, image.tree(Keep::Some(seed)), "the same by its seed");
        let left = content(&tree, "a").unwrap().to_vec();
        assert!(left.starts_with(b"synced "));
        seen.insert(left);
    }
    for left in [
        &b"synced "[..],
        all,
        b"synced \0\0\0\0\0\0\0",
        b"synced wri",
    ] {
        assert!(seen.contains(left), "{:?} of {seen:?}", left);
    }
}

#[test]
fn later_writes_may_be_left_without_earlier_ones() {
    let (folder, disk) = disk();
    let file = disk.open(&folder.path().join("a"), true).unwrap();
    disk.sync_dir(folder.path()).unwrap();
    append(file.as_ref(), b"first");
    append(file.as_ref(), b"second");
    let image = disk.image();
    let left: HashSet<Vec<u8>> = (0..200)
        .map(|seed| {
            content(&image.tree(Keep::Some(seed)), "a")
                .unwrap()
                .to_vec()
        })
        .collect();
    assert!(left.contains(&b"\0\0\0\0\0second"[..]));
    assert!(left.contains(&b"firstsecond"[..]));
    assert!(left.contains(&b"first"[..]));
}

#[test]
fn names_are_left_in_their_order_folder_by_folder() {
    let (folder, disk) = disk();
    let path = |name: &str| folder.path().join(name);
    disk.create_dir_all(&path("inner")).unwrap();
    for name in ["x.tmp", "inner/y"] {
        disk.open(&path(name), true).unwrap();
    }
    disk.sync_dir(folder.path()).unwrap();
    disk.rename(&path("x.tmp"), &path("x")).unwrap();
    disk.open(&path("z"), true).unwrap();
    disk.remove_file(&path("x")).unwrap();
    let image = disk.image();
    let names = |keep| -> Vec<String> {
        let tree = image.tree(keep);
        tree.keys().map(|path| path.display().to_string()).collect()
    };
    assert_eq!(names(Keep::None), ["inner", "x.tmp"]);
    assert_eq!(names(Keep::All), ["inner", "inner/y", "z"]);
    let some: HashSet<Vec<String>> = (0..100).map(|seed| names(Keep::Some(seed))).collect();
    let outer = [vec!["x.tmp"], vec!["x"], vec!["x", "z"], vec!["z"]];
    let expected: HashSet<Vec<String>> = outer
        .iter()
        .flat_map(|outer| {
            [vec!["inner"], vec!["inner", "inner/y"]].map(|i| [i, outer.clone()].concat())
        })
        .map(|names| names.into_iter().map(str::to_owned).collect())
        .collect();
    assert_eq!(some, expected);
}

#[test]
fn a_sync_makes_durable_what_was_written_before_it_began() {
    let (folder, disk) = disk();
    let path = folder.path().join("a");
    let file = disk.open(&path, true).unwrap();
    disk.sync_dir(folder.path()).unwrap();
    append(file.as_ref(), b"before");
    disk.delay_syncs(Duration::from_millis(200));
    std::thread::scope(|scope| {
        scope.spawn(|| file.sync().unwrap());
        while disk.count(Call::Sync, "a") == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        append(file.as_ref(), b" and since");
    });
    let tree = disk.image().tree(Keep::None);
    assert_eq!(content(&tree, "a"), Some(&b"before"[..]));
}

#[test]
fn a_journal_has_the_disk_after_every_call() {
    let (folder, disk) = disk();
    disk.record();
    let file = disk.open(&folder.path().join("a"), true).unwrap();
    append(file.as_ref(), b"one");
    let before_sync = disk.recorded();
    file.sync().unwrap();
    disk.sync_dir(folder.path()).unwrap();
    let journal = disk.journal();
    assert_eq!((journal.len(), before_sync), (4, 2));
    let mut images = journal.images();
    let mut durable = Vec::new();
    while let Some((_, _, image)) = images.next() {
        durable.push(content(&image.tree(Keep::None), "a").map(<[u8]>::to_vec));
    }
    let there = Some(b"one".to_vec());
    assert_eq!(durable, [None, None, None, None, there]);
}

#[test]
fn calls_fail_as_they_are_told() {
    let (folder, disk) = disk();
    let file = disk.open(&folder.path().join("a.log"), true).unwrap();
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    disk.fail(
        Fault::new(Call::Write, Failure::Torn(libc::ENOSPC))
            .on(".log")
            .once_after(1),
    );
    append(file.as_ref(), b"whole");
    let torn = write_all_at(file.as_ref(), &[b"ha", b"lf."], 5);
    assert_eq!(kind(torn), ErrorKind::StorageFull);
    let mut read = [0; 20];
    assert_eq!(read_full_at(file.as_ref(), &mut read, 0).unwrap(), 7);
    assert_eq!(&read[..7], b"wholeha");
    append(file.as_ref(), b"lf");

    disk.fail(Fault::new(Call::Sync, Failure::Lie).once());
    disk.sync_dir(folder.path()).unwrap();
    file.sync().unwrap();
    assert_eq!(
        content(&disk.image().tree(Keep::None), "a.log"),
        Some(&b""[..])
    );

    disk.fail(Fault::new(Call::Sync, Failure::Errno(libc::EIO)).in_folder("elsewhere"));
    file.sync().unwrap();
    disk.crash_after(1);
    append(file.as_ref(), b"!");
    assert!(disk.has_crashed());
    assert!(file.sync().is_err());
    assert!(file.set_len(0).is_err());
    assert_eq!(
        content(&disk.image().tree(Keep::All), "a.log"),
        Some(&b"wholehalf!"[..])
    );
}

#[test]
fn interruptions_and_short_calls_are_gone_on_from() {
    let (folder, disk) = disk();
    let file = disk.open(&folder.path().join("a"), true).unwrap();
    disk.interrupt(1);
    let slices: Vec<Vec<u8>> = (0..40_u8)
        .map(|byte| vec![byte; usize::from(byte)])
        .collect();
    let slices: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
    let whole = slices.concat();
    for round in 0..50 {
        write_all_at(file.as_ref(), &slices, round * whole.len() as u64).unwrap();
    }
    let mut read = vec![0; 50 * whole.len() + 1];
    assert_eq!(
        read_full_at(file.as_ref(), &mut read, 0).unwrap(),
        50 * whole.len()
    );
    assert!(read.chunks_exact(whole.len()).all(|round| round == whole));
}

#[test]
fn a_full_disk_has_room_again_when_something_goes() {
    let (folder, disk) = disk();
    let file = disk.open(&folder.path().join("a"), true).unwrap();
    disk.set_capacity(Some(10));
    file.allocate(8).unwrap();
    let other = disk.open(&folder.path().join("b"), true).unwrap();
    let full = write_all_at(other.as_ref(), &[b"xyz"], 0).unwrap_err();
    assert_eq!(
        (full.kind(), other.len().unwrap()),
        (ErrorKind::StorageFull, 2)
    );
    append(file.as_ref(), b"8 bytes.");
    disk.remove_file(&folder.path().join("b")).unwrap();
    append(file.as_ref(), b"!!");
    assert_eq!(disk.used(), 10);
    file.set_len(0).unwrap();
    assert_eq!(disk.used(), 0);
}

#[test]
fn an_image_is_a_folder_again() {
    let (folder, disk) = disk();
    disk.create_dir_all(&folder.path().join("inner/most"))
        .unwrap();
    let file = disk
        .open(&folder.path().join("inner/most/a"), true)
        .unwrap();
    append(file.as_ref(), b"bytes");
    let tree = disk.image().tree(Keep::All);
    let other = tempfile::tempdir().unwrap();
    write_tree(&tree, other.path()).unwrap();
    assert_eq!(
        FaultyDisk::over(other.path()).image().tree(Keep::None),
        tree
    );
}

#[test]
fn what_a_kill_leaves_a_power_cut_may_still_take() {
    let (folder, disk) = disk();
    let file = disk.open(&folder.path().join("a"), true).unwrap();
    disk.sync_dir(folder.path()).unwrap();
    append(file.as_ref(), b"written");
    let other = tempfile::tempdir().unwrap();
    let killed = FaultyDisk::after_kill(&disk.image(), other.path());
    let file = killed.open(&other.path().join("a"), false).unwrap();
    append(file.as_ref(), b" on");
    let left = |keep| killed.image().tree(keep);
    assert_eq!(content(&left(Keep::All), "a"), Some(&b"written on"[..]));
    assert_eq!(content(&left(Keep::None), "a"), Some(&b""[..]));
    assert_eq!(killed.used(), 10);
    file.sync().unwrap();
    assert_eq!(content(&left(Keep::None), "a"), Some(&b"written on"[..]));
}
