//! What these tests need of the machine: mounts that nobody else sees, and disks that can be filled, frozen,
//! broken and cut off.
#![allow(unsafe_code, reason = "a mount namespace for one thread, and an ioctl that cuts a disk off")]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::common::{Daemon, is_root, run, skip, until};

/// Runs a test in a thread whose mounts are its own: its processes see them, nobody else does, and the
/// kernel undoes them when the last process in there has ended, whatever becomes of the test.
pub fn in_own_mounts(test: impl FnOnce() + Send) {
    if !is_root() {
        return skip("only root can mount a disk for a test");
    }
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: affects this thread alone, which shares no descriptors table by it.
            if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) } {
                return skip(&format!("mounts of its own cannot be had here: {error}"));
            }
            if !call("mount", &["--make-rprivate", "/"]) {
                return skip("mounts cannot be made private here");
            }
            test();
        });
        thread.join()
    });
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Whether a command ends well.
pub fn call(program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Err(error) => {
            skip(&format!("{program}: {error}"));
            false
        }
        Ok(said) if !said.status.success() => {
            eprintln!("{program} {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
            false
        }
        Ok(_) => true,
    }
}

/// A file system with little room, in the instance's directory.
#[derive(Debug)]
pub struct Disk {
    /// Where it is mounted.
    pub at: PathBuf,
    /// The image, if it is a loop device.
    image: Option<PathBuf>,
}

impl Disk {
    /// In memory. `None` where it cannot be had; said so.
    pub fn tmpfs(daemon: &mut Daemon, name: &str, size: &str) -> Option<Self> {
        let at = daemon.path(name);
        fs::create_dir(&at).unwrap();
        let option = format!("size={size},mode=755");
        if !call("mount", &["-t", "tmpfs", "-o", &option, "none", at.to_str().unwrap()]) {
            skip("a file system in memory cannot be mounted here");
            return None;
        }
        // Before what it lies in.
        daemon.unmount.insert(0, at.clone());
        Some(Self { at, image: None })
    }

    /// ext4 on a loop device of so many bytes, whose image lies in memory.
    pub fn ext4(daemon: &mut Daemon, name: &str, bytes: u64) -> Option<Self> {
        Self::on_loop(daemon, name, (bytes, 2 * bytes), "1024")
    }

    /// ext4 on a thin device: what the file system has in use is there for sure, all else is taken, when it
    /// is written, from what the image lies in.
    pub fn thin(daemon: &mut Daemon, name: &str) -> Option<Self> {
        let disk = Self::on_loop(daemon, name, (24 << 20, 40 << 20), "4096")?;
        disk.unmount();
        let image = disk.image.as_ref()?;
        let bytes = fs::read(image).unwrap();
        // Also what the maker of the file system has left out because it is zero.
        OpenOptions::new().write(true).open(image).unwrap().write_all_at(&bytes, 0).unwrap();
        if !disk.mount() || !call("fstrim", &[disk.at.to_str().unwrap()]) {
            skip("the free part of a loop device cannot be given back here");
            return None;
        }
        // The driver takes a write of which a part fitted for done. A page fits or does not.
        let largest = format!("/sys/block/{}/queue/max_sectors_kb", disk.device());
        OpenOptions::new().write(true).open(largest).unwrap().write_all(b"4").unwrap();
        Some(disk)
    }

    fn on_loop(daemon: &mut Daemon, name: &str, (bytes, backing): (u64, u64), block: &str) -> Option<Self> {
        let mut disk = Self::empty(daemon, name, backing)?;
        disk.make(bytes, block)?;
        disk.begin(daemon)?;
        Some(disk)
    }

    /// An image in a file system of its own in memory, and nothing in it.
    pub fn empty(daemon: &mut Daemon, name: &str, backing: u64) -> Option<Self> {
        let below = Self::tmpfs(daemon, &format!("{name}.below"), &(backing + (1 << 20)).to_string())?;
        let image = below.at.join("image");
        File::create(&image).unwrap();
        let at = daemon.path(name);
        fs::create_dir(&at).unwrap();
        Some(Self { at, image: Some(image) })
    }

    /// Makes an ext4 of it.
    fn make(&self, bytes: u64, block: &str) -> Option<()> {
        let image = self.image.as_ref()?;
        OpenOptions::new().write(true).open(image).unwrap().set_len(bytes).unwrap();
        // All of it usable by root, and nothing written behind the test's back later on.
        let settings = "lazy_itable_init=0,lazy_journal_init=0";
        let made = ["-q", "-F", "-b", block, "-m", "0", "-E", settings, image.to_str().unwrap()];
        call("mkfs.ext4", &made).then_some(())
    }

    /// Mounts it for the first time.
    fn begin(&mut self, daemon: &mut Daemon) -> Option<()> {
        if !self.mount() {
            skip("a loop device with ext4 cannot be had here");
            return None;
        }
        daemon.unmount.insert(0, self.at.clone());
        fs::remove_dir(self.at.join("lost+found")).unwrap();
        Some(())
    }

    /// The bytes of an ext4 with nothing in it.
    pub fn image_of_ext4(daemon: &mut Daemon, bytes: u64) -> Option<Vec<u8>> {
        let disk = Self::empty(daemon, "template", bytes)?;
        disk.make(bytes, "1024")?;
        fs::read(disk.image.as_ref()?).ok()
    }

    /// The ext4 that is in this file.
    pub fn on_file(daemon: &mut Daemon, name: &str, image: &Path) -> Option<Self> {
        let at = daemon.path(name);
        fs::create_dir(&at).unwrap();
        let mut disk = Self { at, image: Some(image.to_owned()) };
        disk.begin(daemon)?;
        Some(disk)
    }

    /// Puts another content into the image, which is not mounted.
    pub fn write_image(&self, bytes: &[u8]) {
        let image = self.image.as_ref().expect("a disk with an image");
        OpenOptions::new().write(true).open(image).unwrap().write_all_at(bytes, 0).unwrap();
    }

    /// Mounts the image.
    pub fn mount(&self) -> bool {
        let image = self.image.as_ref().expect("a disk with an image");
        call("mount", &["-o", "loop,errors=remount-ro", image.to_str().unwrap(), self.at.to_str().unwrap()])
    }

    /// Unmounts it: only when nobody has a file open there. A child of another test that has not executed yet
    /// has copies of all our descriptors, for a moment.
    #[track_caller]
    pub fn unmount(&self) {
        until(&format!("end of the last use of {}", self.at.display()), || {
            let said = Command::new("umount").arg(&self.at).stderr(Stdio::null()).status();
            said.unwrap().success().then_some(())
        });
    }

    /// Puts right what a forced end or an error has left, as a boot does.
    #[track_caller]
    pub fn repair(&self) {
        let image = self.image.as_ref().expect("a disk with an image");
        let said = run(Command::new("fsck.ext4").arg("-p").arg(image));
        // 1: errors were found and put right.
        assert!(said.code <= 1, "{said:?}");
    }

    /// The file system that the image lies in.
    pub fn below(&self) -> Self {
        let image = self.image.as_ref().expect("a disk with an image");
        Self { at: image.parent().unwrap().to_owned(), image: None }
    }

    /// Its device, such as `loop3`.
    pub fn device(&self) -> String {
        let device = fs::metadata(&self.at).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap();
        link.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// Fills it to the last byte that it gives.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.filler()).unwrap();
        let zeros = vec![0; 1 << 16];
        let mut size = zeros.len();
        while size > 0 {
            // Delayed allocation may promise what it cannot keep: only what is synced counts.
            match file.write(&zeros[..size]).and_then(|n| file.sync_data().map(|()| n)) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    size /= 4;
                }
                Err(error) => panic!("{}: {error}", self.at.display()),
            }
        }
    }

    /// Gives the space back.
    pub fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Takes the power: everything that is not durable by now is gone. Processes that use the disk have to
    /// be dead before: a sync under way would report success for nothing.
    pub fn cut(&self) {
        static NOT_EVEN_THE_LOG: u32 = 2;
        // `_IOR('X', 125, __u32)`
        const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d;
        let root = File::open(&self.at).unwrap();
        // SAFETY: reads one number.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const NOT_EVEN_THE_LOG) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// What the kernel says of the mount.
    pub fn options(&self) -> String {
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let at = self.at.to_str().unwrap();
        let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(at));
        line.and_then(|line| line.split(' ').nth(3)).unwrap_or_default().to_owned()
    }
}

/// Puts a file in the place of another for this test's processes.
pub fn put_over(file: &Path, place: &str) -> bool {
    call("mount", &["--bind", file.to_str().unwrap(), place])
}
