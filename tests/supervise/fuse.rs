//! A FUSE file system with one file, whose server may leave some of the kernel's questions unanswered for ever.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Questions (`enum fuse_opcode` of `linux/fuse.h`).
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
pub const READ: u32 = 15;
pub const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
/// Questions to which there is no answer.
const UNANSWERED: [u32; 3] = [2, 36, 42];

/// The mount, for as long as it is there.
pub struct Fuse {
    point: PathBuf,
    /// The kernel's side; once it is closed everybody who waits has an error.
    device: Option<Arc<File>>,
    asked: Arc<AtomicBool>,
}

impl Fuse {
    /// Serves `content` as any name in `point`, and never answers what is `silent`.
    pub fn new(point: &Path, content: &str, silent: u32) -> Fuse {
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("these tests need /dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("hang"), point, Some("fuse"), MsFlags::empty(), Some(options.as_str())).expect("mounted");
        let (device, asked) = (Arc::new(device), Arc::new(AtomicBool::new(false)));
        let (served, said, content) = (Arc::clone(&device), Arc::clone(&asked), content.to_owned());
        std::thread::spawn(move || serve(&served, &content, silent, &said));
        Fuse { point: point.to_owned(), device: Some(device), asked }
    }

    /// Whether somebody waits for what is never answered.
    pub fn is_waited_for(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // Aborts the connection: what waits ends, and with it the server's own read.
        let _ = umount2(&self.point, MntFlags::MNT_FORCE);
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
        self.device = None;
    }
}

fn serve(device: &File, content: &str, silent: u32, asked: &AtomicBool) {
    let mut buffer = vec![0; 1 << 17];
    let number = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    while let Ok(length) = (&*device).read(&mut buffer) {
        let (question, unique, node) = (number(&buffer, 4), buffer[8..16].to_vec(), number(&buffer, 16));
        let (head, body) = (&buffer[..40], &buffer[40..length]);
        assert_eq!(number(head, 0) as usize, length);
        if question == silent {
            asked.store(true, Ordering::SeqCst);
            continue;
        }
        let answer = match question {
            // Version 7.31, nothing special, reads and writes of a page.
            INIT => Ok(words(&[7, 31, 4096, 0, 0, 4096, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            LOOKUP => Ok([words(&[2, 0, 0, 0, 1000, 0, 1000, 0, 0, 0]), attributes(2, content)].concat()),
            GETATTR => Ok([words(&[1000, 0, 0, 0]), attributes(node, content)].concat()),
            OPEN | OPENDIR => Ok(words(&[0; 4])),
            READ => Ok(content.as_bytes()[content.len().min(number(body, 8) as usize)..].to_vec()),
            STATFS => Ok(words(&[0; 20])),
            RELEASE | FLUSH => Ok(Vec::new()),
            _ if UNANSWERED.contains(&question) => continue,
            _ => Err(libc::ENOSYS),
        };
        let (errno, answer) = answer.map_or_else(|errno| (-errno, Vec::new()), |answer| (0, answer));
        let head = [words(&[16 + answer.len() as u32, errno as u32]), unique].concat();
        // A question may have been given up meanwhile.
        let _ = (&*device).write(&[head, answer].concat());
    }
}

/// `struct fuse_attr`: the root is a folder, all else a program of one page.
fn attributes(node: u32, content: &str) -> Vec<u8> {
    let (mode, size) = if node == 1 { (0o40755, 0) } else { (0o100_755, content.len() as u32) };
    words(&[node, 0, size, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
