//! Which watch descriptor stands for which directory, while directories move about.
//!
//! Owns: the tree of names. Must not: call the kernel.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use inotify::WatchDescriptor;

/// A directory: its name and the watch of the directory it is in (none for the root).
#[derive(Debug)]
struct Node {
    parent: Option<WatchDescriptor>,
    name: Box<OsStr>,
}

/// The watched directories. A path is put together from names, so that moving a directory moves all below it.
#[derive(Debug)]
pub(super) struct WatchTree {
    nodes: HashMap<WatchDescriptor, Node>,
    children: HashMap<(Option<WatchDescriptor>, Box<OsStr>), WatchDescriptor>,
    moving: Vec<(u32, PathBuf)>,
    max: usize,
}

impl WatchTree {
    pub(super) fn new(max: usize) -> WatchTree {
        WatchTree { nodes: HashMap::new(), children: HashMap::new(), moving: Vec::new(), max }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether one more directory, with `waiting` to follow it, is too many.
    pub(super) fn is_full(&self, waiting: usize) -> bool {
        self.nodes.len() + waiting >= self.max
    }

    /// The directory's path relative to the root, as far as events told.
    pub(super) fn path(&self, wd: &WatchDescriptor) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut at = self.nodes.get(wd)?;
        while let Some(parent) = &at.parent {
            names.push(&*at.name);
            // A loop can't be, as only `insert` sets a parent; a bound makes it harmless all the same.
            if names.len() > self.nodes.len() {
                return None;
            }
            at = self.nodes.get(parent)?;
        }
        Some(names.iter().rev().collect())
    }

    fn find(&self, path: &Path) -> Option<WatchDescriptor> {
        let mut at = self.children.get(&(None, Box::from(OsStr::new(""))))?.clone();
        for name in path.iter() {
            at = self.children.get(&(Some(at), Box::from(name)))?.clone();
        }
        Some(at)
    }

    /// The directory at `path` has this watch now. The kernel gives the same descriptor for the same directory, so
    /// this also moves one.
    pub(super) fn insert(&mut self, wd: WatchDescriptor, path: &Path) {
        let parent = path.parent().and_then(|p| self.find(p));
        let name: Box<OsStr> = path.file_name().unwrap_or_default().into();
        if parent.is_none() && !name.is_empty() || parent.as_ref() == Some(&wd) {
            return;
        }
        self.unlink(&wd);
        self.children.insert((parent.clone(), name.clone()), wd.clone());
        self.nodes.insert(wd, Node { parent, name });
    }

    fn unlink(&mut self, wd: &WatchDescriptor) {
        if let Some(node) = self.nodes.remove(wd) {
            let key = (node.parent, node.name);
            if self.children.get(&key) == Some(wd) {
                self.children.remove(&key);
            }
        }
    }

    /// The kernel has dropped the watch.
    pub(super) fn forget(&mut self, wd: &WatchDescriptor) {
        self.unlink(wd);
    }

    /// Something left `path`; its arrival elsewhere has the same cookie.
    pub(super) fn moved_from(&mut self, cookie: u32, path: PathBuf) {
        self.moving.push((cookie, path));
    }

    /// Something arrived; gives where it came from, and takes the directory's watch along.
    pub(super) fn moved_to(&mut self, cookie: u32, path: &Path) -> Option<PathBuf> {
        let at = self.moving.iter().position(|(c, _)| *c == cookie)?;
        let (_, old) = self.moving.remove(at);
        if let Some(wd) = self.find(&old) {
            self.insert(wd, path);
        }
        Some(old)
    }

    /// What left and did not arrive, with the watches of it and of all below.
    pub(super) fn take_moved_away(&mut self) -> Vec<(PathBuf, Vec<WatchDescriptor>)> {
        let moving = std::mem::take(&mut self.moving);
        moving
            .into_iter()
            .map(|(_, path)| {
                let wds = self.find(&path).map(|wd| self.remove_below(wd)).unwrap_or_default();
                (path, wds)
            })
            .collect()
    }

    fn remove_below(&mut self, top: WatchDescriptor) -> Vec<WatchDescriptor> {
        let mut gone = vec![top];
        let mut at = 0;
        while let Some(wd) = gone.get(at).cloned() {
            gone.extend(self.nodes.iter().filter(|(_, n)| n.parent.as_ref() == Some(&wd)).map(|(k, _)| k.clone()));
            at += 1;
        }
        for wd in &gone {
            self.unlink(wd);
        }
        gone
    }
}
