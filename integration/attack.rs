//! What an intruder tries on a root filesystem, and how each attempt ended.

use anyhow::{Result, ensure};

/// Prints one line an attempt: `landed`, `refused` (EROFS) or `other`, with the attempt. Needs the busybox image; writes
/// nothing but what it attempts. The remount comes first: without CAP_SYS_ADMIN it fails, with it it must not help.
pub const SCRIPT: &str = r#"
mount -o remount,rw / 2>/dev/null
attempt() {
  out=$(sh -c "$1" 2>&1) && { echo "landed: $1"; return; }
  case $out in *"Read-only file system"*) echo "refused: $1";; *) echo "other: $1: $out";; esac
}
attempt 'echo x > /new'
attempt 'echo x >> /srv/file'
attempt 'mkdir /newdir'
attempt 'mkdir -p /a/b/c'
attempt 'mknod /pipe p'
attempt 'ln -s /srv /symlink'
attempt 'ln /srv/file /hardlink'
attempt 'cp /bin/busybox /usr/bin/implant'
attempt 'chmod 4777 /srv/file'
attempt 'chown 1:1 /srv/file'
attempt 'touch -d 2001-01-01 /srv/file'
attempt 'truncate -s 0 /etc/group'
attempt 'dd if=/dev/zero of=/etc/nsswitch.conf bs=1 count=1 conv=notrunc'
attempt 'rm /srv/dir/nested'
attempt 'mv /srv/file /srv/moved'
attempt 'rm -r /srv/dir'
"#;

/// How many attempts the script makes.
const ATTEMPTS: usize = 16;

/// Every attempt must have ended that way (`landed` or `refused`).
pub fn all(verdict: &str, output: &str) -> Result<()> {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    ensure!(lines.len() == ATTEMPTS, "expected {ATTEMPTS} attempts: {output}");
    let others: Vec<&&str> = lines.iter().filter(|line| !line.starts_with(verdict)).collect();
    ensure!(others.is_empty(), "not {verdict}: {others:#?}");
    Ok(())
}
