//! The disk: a tree of folders and files, each in two versions, the one in the page cache and the one that a power cut
//! leaves.
//!
//! Everything changes the cached version. `sync` of a file makes its bytes and its size durable, and nothing else: not
//! its name. `sync` of a folder makes its names durable, and nothing else: not what they lead to. That is all that POSIX
//! promises. Most file systems promise more; [`Journal::Shared`] is the usual one, where a file's sync takes every
//! earlier change of a name along. A rename is atomic in both. Modes and times do not take part: a name that is durable
//! has its mode.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::cut::{Cut, Names};
use crate::dice::Dice;
use crate::file::FileImage;

/// Number of a file or folder.
pub(crate) type Inode = u64;

/// The folder of all.
pub(crate) const ROOT: Inode = 1;

/// Whether names become durable with the sync of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    /// They do not.
    None,
    /// All of them do, as with ext4.
    Shared,
}

/// Why something cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing,
    Exists,
    NotFolder,
    IsFolder,
    NotEmpty,
}

type Outcome<T> = Result<T, Refusal>;

/// A file or folder.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The permission bits.
    pub(crate) mode: u16,
    /// Milliseconds since 1970 when it was last changed.
    pub(crate) changed_ms: u64,
    /// The name it was given last.
    pub(crate) name: OsString,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    File(FileImage),
    Folder(FolderImage),
}

/// What a folder leads to.
#[derive(Debug, Clone, Default)]
pub(crate) struct FolderImage {
    pub(crate) cached: BTreeMap<OsString, Inode>,
    durable: BTreeMap<OsString, Inode>,
}

/// A name that leads somewhere else now, or nowhere.
#[derive(Debug, Clone)]
struct Edit {
    folder: Inode,
    name: OsString,
    target: Option<Inode>,
}

/// The disk.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    journal: Journal,
    nodes: BTreeMap<Inode, Node>,
    /// Changes of names that are not durable, oldest first; each happens as a whole.
    pending: Vec<Vec<Edit>>,
    next: Inode,
}

impl Image {
    pub(crate) fn new(journal: Journal) -> Self {
        let root =
            Node { mode: 0o755, changed_ms: 0, name: OsString::new(), body: Body::Folder(FolderImage::default()) };
        Self { journal, nodes: BTreeMap::from([(ROOT, root)]), pending: Vec::new(), next: ROOT + 1 }
    }

    pub(crate) fn node(&self, inode: Inode) -> Outcome<&Node> {
        self.nodes.get(&inode).ok_or(Refusal::Missing)
    }

    pub(crate) fn node_mut(&mut self, inode: Inode) -> Outcome<&mut Node> {
        self.nodes.get_mut(&inode).ok_or(Refusal::Missing)
    }

    pub(crate) fn file_mut(&mut self, inode: Inode) -> Outcome<&mut FileImage> {
        match &mut self.node_mut(inode)?.body {
            Body::File(file) => Ok(file),
            Body::Folder(_) => Err(Refusal::IsFolder),
        }
    }

    pub(crate) fn folder(&self, inode: Inode) -> Outcome<&FolderImage> {
        match &self.node(inode)?.body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) => Err(Refusal::NotFolder),
        }
    }

    pub(crate) fn look_up(&self, folder: Inode, name: &OsStr) -> Outcome<Inode> {
        self.folder(folder)?.cached.get(name).copied().ok_or(Refusal::Missing)
    }

    /// What a file of this path below the root holds.
    pub(crate) fn read(&self, path: &Path) -> Outcome<&[u8]> {
        let inode = path.iter().try_fold(ROOT, |folder, name| self.look_up(folder, name))?;
        match &self.node(inode)?.body {
            Body::File(file) => Ok(file.bytes()),
            Body::Folder(_) => Err(Refusal::IsFolder),
        }
    }

    /// Makes a file or folder.
    pub(crate) fn create(&mut self, folder: Inode, name: &OsStr, mode: u16, body: Body, now_ms: u64) -> Outcome<Inode> {
        if self.folder(folder)?.cached.contains_key(name) {
            return Err(Refusal::Exists);
        }
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, Node { mode, changed_ms: now_ms, name: name.to_owned(), body });
        self.edit(vec![Edit { folder, name: name.to_owned(), target: Some(inode) }]);
        Ok(inode)
    }

    pub(crate) fn remove(&mut self, folder: Inode, name: &OsStr) -> Outcome<()> {
        let inode = self.look_up(folder, name)?;
        self.check_empty(inode)?;
        self.edit(vec![Edit { folder, name: name.to_owned(), target: None }]);
        Ok(())
    }

    fn check_empty(&self, inode: Inode) -> Outcome<()> {
        match &self.node(inode)?.body {
            Body::Folder(folder) if !folder.cached.is_empty() => Err(Refusal::NotEmpty),
            Body::Folder(_) | Body::File(_) => Ok(()),
        }
    }

    /// Gives a file or folder another name, which may be taken unless `exclusive`.
    pub(crate) fn rename(&mut self, from: (Inode, &OsStr), to: (Inode, &OsStr), exclusive: bool) -> Outcome<()> {
        let inode = self.look_up(from.0, from.1)?;
        match self.look_up(to.0, to.1) {
            Ok(_taken) if exclusive => return Err(Refusal::Exists),
            Ok(taken) if taken == inode => return Ok(()),
            Ok(taken) => self.check_empty(taken)?,
            Err(_free) => {
                self.folder(to.0)?;
            }
        }
        self.node_mut(inode)?.name = to.1.to_owned();
        let gone = Edit { folder: from.0, name: from.1.to_owned(), target: None };
        let come = Edit { folder: to.0, name: to.1.to_owned(), target: Some(inode) };
        self.edit(vec![gone, come]);
        Ok(())
    }

    fn edit(&mut self, edits: Vec<Edit>) {
        for edit in &edits {
            self.apply(edit, |folder| &mut folder.cached);
        }
        self.pending.push(edits);
    }

    fn apply(&mut self, edit: &Edit, version: impl Fn(&mut FolderImage) -> &mut BTreeMap<OsString, Inode>) {
        let Some(Node { body: Body::Folder(folder), .. }) = self.nodes.get_mut(&edit.folder) else { return };
        match edit.target {
            Some(inode) => version(folder).insert(edit.name.clone(), inode),
            None => version(folder).remove(&edit.name),
        };
    }

    /// Makes a file's bytes durable, or a folder's names.
    pub(crate) fn sync(&mut self, inode: Inode) -> Outcome<()> {
        match &mut self.node_mut(inode)?.body {
            Body::Folder(_) => self.sync_names(inode),
            Body::File(file) => {
                file.sync();
                if self.journal == Journal::Shared {
                    let all = std::mem::take(&mut self.pending);
                    self.make_durable(&all);
                }
            }
        }
        Ok(())
    }

    /// Takes every change along that the folder's own depend on: a rename reaches into two folders.
    fn sync_names(&mut self, folder: Inode) {
        let mut folders = BTreeSet::from([folder]);
        let (mut synced, mut left) = (Vec::new(), Vec::new());
        for edits in std::mem::take(&mut self.pending).into_iter().rev() {
            let touches = edits.iter().any(|edit| folders.contains(&edit.folder));
            if touches {
                folders.extend(edits.iter().map(|edit| edit.folder));
                synced.push(edits);
            } else {
                left.push(edits);
            }
        }
        synced.reverse();
        left.reverse();
        self.pending = left;
        self.make_durable(&synced);
    }

    fn make_durable(&mut self, changes: &[Vec<Edit>]) {
        for edit in changes.iter().flatten() {
            self.apply(edit, |folder| &mut folder.durable);
        }
    }

    /// Cuts the power: what was not synced is lost, as far as the cut says, and what is left is durable.
    pub(crate) fn cut(&mut self, cut: Cut, dice: &Dice) {
        let pending = std::mem::take(&mut self.pending);
        let kept: Vec<_> = match cut.names {
            Names::None => Vec::new(),
            Names::All => pending,
            Names::Earlier => {
                let count = dice.below(pending.len() + 1);
                pending.into_iter().take(count).collect()
            }
            Names::Some => pending.into_iter().filter(|_edits| dice.percent(50)).collect(),
        };
        self.make_durable(&kept);
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(file) => file.cut(cut.data, dice),
                Body::Folder(folder) => folder.cached.clone_from(&folder.durable),
            }
        }
        self.forget_unreachable();
    }

    fn forget_unreachable(&mut self) {
        let (mut reached, mut next) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(folder) = next.pop() {
            let names = self.folder(folder).map(|folder| &folder.cached);
            next.extend(names.into_iter().flat_map(BTreeMap::values).copied().filter(|inode| reached.insert(*inode)));
        }
        self.nodes.retain(|inode, _node| reached.contains(inode));
    }
}

#[cfg(test)]
mod tests;
