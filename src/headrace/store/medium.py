"""What a folder rests on: whether many lanes may write all over a file there, or in order only.

A spinning disk pays a seek for each jump, and network and FUSE file systems turn scattered writes into small
requests, at worst into wrong files. There few lanes write close to each other; everywhere else many may.

`look` gathers facts, `judge` decides; the facts are those of proc(5) (mountinfo) and of the kernel's
Documentation/ABI/stable/sysfs-block. What cannot be found out is taken to be an ordinary disk.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_NETWORK = frozenset(
    [
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb3",
        "smbfs",
    ]
)
_HOSTS_FOLDERS = frozenset(["drvfs", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"])
_MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs"})
_LAYERED = frozenset({"overlay", "overlayfs", "aufs"})
_VIRTUAL_PATH = re.compile(r"/virtio\d|/vbd-|/vmbus|/VMBUS|/zram\d|/ram\d")
_VIRTUAL_MAKERS = frozenset({"qemu", "msft", "vmware", "vbox", "google", "xen", "amazon"})
_ESCAPE = re.compile(r"\\([0-7]{3})")
_DEPTH_MOST = 8  # layers upon layers end somewhere


class Kind(Enum):
    """What kind of medium it is."""

    DISK = "disk"
    MEMORY = "memory"
    ROTATING = "rotating disk"
    NETWORK = "network file system"
    FUSE = "file system in user space"


@dataclass(frozen=True)
class Medium:
    """A judgement, and the reason for it in words."""

    kind: Kind
    why: str

    @property
    def in_order(self) -> bool:
        """Whether bytes should be written near each other, by few lanes."""
        return self.kind in (Kind.ROTATING, Kind.NETWORK, Kind.FUSE)


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo."""

    point: str
    kind: str
    source: str
    device: str
    options: str


@dataclass(frozen=True)
class Disk:
    """A physical or virtual disk that a file system lies on in the end.

    Attributes:
        rotating: what the kernel says of it; virtual disks say so of themselves without turning.
        virtual: another machine or a hypervisor keeps it; nobody here knows on what.
    """

    name: str
    rotating: bool
    virtual: bool


@dataclass(frozen=True)
class Facts:
    """All that is known of a folder's medium."""

    mount: Mount | None
    disks: tuple[Disk, ...] = ()
    kernel: str = ""


def medium_of(folder: Path, system: Path = Path("/")) -> Medium:
    """What this folder rests on. `system` is where /proc, /sys and /dev are; tests give their own."""
    return judge(look(folder, system))


def judge(facts: Facts) -> Medium:
    """Decide by the facts alone."""
    mount = facts.mount
    if mount is None:
        return Medium(Kind.DISK, "nothing is known of its file system")
    where = f"{mount.point} is {mount.kind}"
    is_wsl = "microsoft" in facts.kernel.lower()
    if mount.kind == "drvfs" or (is_wsl and mount.kind in ("9p", "virtiofs") and "drvfs" in mount.options):
        return Medium(Kind.NETWORK, f"{where}: a drive of Windows, reached from WSL2 over a protocol")
    if mount.kind in _HOSTS_FOLDERS:
        return Medium(Kind.NETWORK, f"{where}: a folder of the host of this virtual machine")
    if mount.kind in _NETWORK:
        return Medium(Kind.NETWORK, f"{where}: its files lie on another machine")
    if mount.kind.partition(".")[0] in ("fuse", "fuseblk"):
        return Medium(Kind.FUSE, f"{where}: a program carries every byte")
    if mount.kind in _MEMORY:
        return Medium(Kind.MEMORY, f"{where}: it lies in memory")
    spinning = [disk.name for disk in facts.disks if disk.rotating and not (disk.virtual or is_wsl)]
    if spinning:
        return Medium(Kind.ROTATING, f"{where} on {', '.join(spinning)}: a disk that turns")
    return Medium(Kind.DISK, f"{where}: many lanes may write")


def look(folder: Path, system: Path = Path("/")) -> Facts:
    """Gather the facts about a folder, which need not exist yet. Never fails: what cannot be read is unknown."""
    mounts = mounts_in(_told(system / "proc/self/mountinfo"))
    mount = _mount_of(Path(os.path.realpath(folder)), mounts)
    for _ in range(_DEPTH_MOST):
        beneath = _writable_layer(mount) if mount is not None else None
        under = _mount_of(beneath, mounts) if beneath is not None else None
        if under is None or under == mount:
            break
        mount = under
    if mount is None:
        return Facts(None)
    disks = tuple(dict.fromkeys(_disks(_device(mount, system), system, 0)))
    return Facts(mount, disks, _told(system / "proc/sys/kernel/osrelease").strip())


def mounts_in(mountinfo: str) -> list[Mount]:
    """The mounts of a mountinfo text; lines that are none are skipped.

    A line: id, parent, major:minor, root, mount point, options, any number of tags, `-`, type, source, options.
    """
    mounts = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        front, back = left.split(" "), right.split(" ")
        if len(front) >= 6 and len(back) >= 2:  # noqa: PLR2004  # the fields named above
            options = ",".join((front[5], *map(_plain, back[2:])))
            mounts.append(Mount(_plain(front[4]), back[0], _plain(back[1]), front[2], options))
    return mounts


def _mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """The mount a path lies in: that of the longest mount point above it; of several there the last hides the others."""
    best: Mount | None = None
    for mount in mounts:
        above = mount.point == "/" or path.is_relative_to(mount.point)
        if above and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _writable_layer(mount: Mount) -> Path | None:
    """Where an overlay keeps what is written to it."""
    if mount.kind not in _LAYERED:
        return None
    found = re.search(r"(?:^|,)upperdir=((?:\\.|[^,])*)", mount.options)
    return Path(re.sub(r"\\(.)", r"\1", found[1])) if found else None


def _device(mount: Mount, system: Path) -> Path | None:
    """The block device of a mount in sysfs; btrfs has numbers of its own, so there its source tells."""
    numbered = system / "sys/dev/block" / mount.device
    if numbered.exists():
        return Path(os.path.realpath(numbered))
    if mount.source.startswith("/dev/"):
        name = Path(os.path.realpath(system / mount.source[1:])).name
        named = system / "sys/class/block" / name
        if named.exists():
            return Path(os.path.realpath(named))
    return None


def _disks(device: Path | None, system: Path, depth: int) -> list[Disk]:
    """The disks at the bottom of a device: through partitions, device mapper (crypt, LVM) and RAID."""
    if device is None or depth > _DEPTH_MOST:
        return []
    if (device / "partition").exists():
        device = device.parent
    try:
        below = sorted((device / "slaves").iterdir())
    except OSError:
        below = []
    if below:
        return [disk for one in below for disk in _disks(Path(os.path.realpath(one)), system, depth + 1)]
    maker = _told(device / "device/vendor").strip().lower()
    model = _told(device / "device/model").strip().lower()
    makers = {maker, *model.split()[:1]}
    is_virtual = bool(_VIRTUAL_PATH.search(str(device))) or not makers.isdisjoint(_VIRTUAL_MAKERS)
    rotating = _told(device / "queue/rotational").strip() == "1"
    return [Disk(device.name, rotating, is_virtual)]


def _plain(field: str) -> str:
    """A field as it was meant: blanks and backslashes are written in octal."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), field)


def _told(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):
        return ""
