"""What a folder rests on is told from facts: those of a machine that a test describes, and of this one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.cli.notes import Notes
from headrace.events import WritingInOrder
from headrace.plan.limits import MIB, Limits
from headrace.store.medium import Kind, Medium, medium_of, mounts_in

WSL = "5.15.167.4-microsoft-standard-WSL2"
ROOT = "27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
DISK = "devices/pci0000:00/ata1/host0/target0/block/sda"


@dataclass
class Machine:
    """A machine as /proc and /sys would describe it."""

    root: Path

    def says(self, *mounts: str, kernel: str = "6.8.0-generic") -> Machine:
        """Its mounts and its kernel."""
        self.write("proc/self/mountinfo", "\n".join(mounts) + "\n")
        self.write("proc/sys/kernel/osrelease", kernel + "\n")
        return self

    def disk(
        self, number: str, at: str = DISK, *, rotating: bool, vendor: str = "ATA", part: str = ""
    ) -> Path:
        """A disk, or its partition `part`, under its number."""
        self.write(f"sys/{at}/queue/rotational", f"{int(rotating)}\n")
        self.write(f"sys/{at}/device/vendor", f"{vendor}    \n")
        if part:
            self.write(f"sys/{at}/{part}/partition", "1\n")
        return self.number(number, f"{at}/{part}" if part else at)

    def number(self, number: str, at: str) -> Path:
        """The link from a device's number to its folder."""
        device = self.root / "sys" / at
        device.mkdir(parents=True, exist_ok=True)
        link = self.root / "sys/dev/block" / number
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(device, link.parent))
        return device

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def medium(self, folder: str = "/data/cache") -> Medium:
        return medium_of(Path(folder), self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine of which nothing is known yet."""
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("mount", "kernel", "kind"),
    [
        ("40 27 0:40 / /data rw - nfs4 server:/export rw,vers=4.2", "6.8", Kind.NETWORK),
        ("40 27 0:40 / /data rw - nfs server:/export rw", "6.8", Kind.NETWORK),
        ("40 27 0:40 / /data rw - cifs //server/share rw", "6.8", Kind.NETWORK),
        ("40 27 0:40 / /data rw - smb3 //server/share rw", "6.8", Kind.NETWORK),
        ("40 27 0:40 / /data rw - ceph mon:/ rw", "6.8", Kind.NETWORK),
        ("40 27 0:40 / /data rw - lustre mgs:/fs rw", "6.8", Kind.NETWORK),
        ("40 27 0:40 / /data rw - 9p share rw,trans=virtio", "6.8", Kind.NETWORK),
        ("40 27 0:40 / /data rw - 9p C:\\134 rw,aname=drvfs;path=C:\\134;uid=1000", WSL, Kind.NETWORK),
        ("40 27 0:40 / /data rw - virtiofs drvfsC rw,tag=drvfs", WSL, Kind.NETWORK),
        ("40 27 0:40 / /data rw - vboxsf share rw", "6.8", Kind.NETWORK),
        ("40 27 0:40 / /data rw - fuse.sshfs host:/ rw,user_id=0", "6.8", Kind.FUSE),
        ("40 27 0:40 / /data rw - fuse data rw", "6.8", Kind.FUSE),
        ("40 27 8:40 / /data rw - fuseblk /dev/sdb1 rw", "6.8", Kind.FUSE),
        ("40 27 0:40 / /data rw - tmpfs tmpfs rw,size=4k", "6.8", Kind.MEMORY),
        ("40 27 0:40 / /data rw - zfs pool/data rw", "6.8", Kind.DISK),
        ("", "6.8", Kind.DISK),
    ],
)
def test_the_file_system_tells(mount: str, kernel: str, kind: Kind, machine: Machine) -> None:
    machine.says(ROOT, mount, kernel=kernel).disk("8:1", rotating=False, part="sda1")
    medium = machine.medium()
    assert medium.kind is kind
    assert medium.in_order is (kind in (Kind.NETWORK, Kind.FUSE))
    assert "/" in medium.why


def test_a_drive_of_windows_is_named(machine: Machine) -> None:
    machine.says(ROOT, "40 27 0:40 / /mnt/c rw - 9p C:\\134 rw,aname=drvfs;path=C:\\134", kernel=WSL)
    assert "Windows" in machine.medium("/mnt/c/Users/x").why


@pytest.mark.parametrize("rotating", [True, False])
def test_a_disk_that_turns_and_one_that_does_not(machine: Machine, *, rotating: bool) -> None:
    machine.says(ROOT).disk("8:1", rotating=rotating, part="sda1")
    assert machine.medium().in_order is rotating
    assert not rotating or "sda" in machine.medium().why


@pytest.mark.parametrize(
    ("at", "vendor", "kernel"),
    [
        (DISK, "Msft", WSL),
        (DISK, "ATA", WSL),
        ("devices/LNXSYSTM:00/ACPI0004:00/VMBUS:00/fd1d2cbd/host0/target0/block/sda", "Msft", "6.8.0-azure"),
        ("devices/pci0000:00/0000:00:02.0/virtio1/block/vda", "0x1af4", "6.8"),
        ("devices/vbd-51712/block/xvda", "", "6.8"),
        (DISK, "QEMU", "6.8"),
        (DISK, "VMware", "6.8"),
    ],
)
def test_virtual_disks_only_say_that_they_turn(at: str, vendor: str, kernel: str, machine: Machine) -> None:
    machine.says(ROOT, kernel=kernel).disk("8:1", at, rotating=True, vendor=vendor)
    assert machine.medium().kind is Kind.DISK


@pytest.mark.parametrize("rotating", [True, False])
def test_what_lies_beneath_a_mapped_device_counts(machine: Machine, *, rotating: bool) -> None:
    """Crypt over LVM over a partition: neither layer above has a medium of its own."""
    machine.says("27 1 253:1 / / rw - ext4 /dev/mapper/home rw").disk("8:1", rotating=rotating, part="sda1")
    for number, name, below in (
        ("253:0", "dm-0", f"{DISK}/sda1"),
        ("253:1", "dm-1", "devices/virtual/block/dm-0"),
    ):
        device = machine.number(number, f"devices/virtual/block/{name}")
        (device / "slaves").mkdir()
        (device / "slaves" / Path(below).name).symlink_to(machine.root / "sys" / below)
        machine.write(f"sys/devices/virtual/block/{name}/queue/rotational", "0\n")
    assert machine.medium().in_order is rotating


def test_btrfs_is_found_by_its_source(machine: Machine) -> None:
    """Its device number is none of a block device."""
    machine.says("27 1 0:29 /@home / rw - btrfs /dev/sda1 rw,subvol=/@home").disk(
        "8:1", rotating=True, part="sda1"
    )
    named = machine.root / "sys/class/block/sda1"
    named.parent.mkdir(parents=True)
    named.symlink_to(machine.root / "sys" / DISK / "sda1")
    assert machine.medium().kind is Kind.ROTATING


@pytest.mark.parametrize(("upper", "kind"), [("/disk/upper", Kind.ROTATING), ("/net/upper", Kind.NETWORK)])
def test_an_overlay_is_what_its_upper_layer_lies_on(upper: str, kind: Kind, machine: Machine) -> None:
    machine.says(
        f"27 1 0:50 / / rw - overlay overlay rw,lowerdir=/a:/b,upperdir={upper},workdir=/w",
        "28 27 8:1 / /disk rw - ext4 /dev/sda1 rw",
        "29 27 0:60 / /net rw - nfs4 server:/x rw",
    ).disk("8:1", rotating=True, part="sda1")
    assert machine.medium("/app/cache").kind is kind


def test_an_overlay_of_which_nothing_more_can_be_seen_is_a_disk(machine: Machine) -> None:
    machine.says("27 1 0:50 / / rw - overlay overlay rw,upperdir=/upper")
    assert machine.medium().kind is Kind.DISK


def test_the_longest_mount_point_and_the_last_of_it_count(machine: Machine) -> None:
    machine.says(
        ROOT,
        "40 27 0:40 / /data rw - nfs server:/x rw",
        "41 40 0:41 / /data/my\\040models rw - tmpfs tmpfs rw",
        "42 27 0:42 / /data2 rw - fuse.x x rw",
        "43 40 0:43 / /data/over rw - nfs a:/ rw",
        "44 43 0:44 / /data/over rw - tmpfs tmpfs rw",
    )
    assert machine.medium("/data/cache").kind is Kind.NETWORK
    assert machine.medium("/data/my models/cache").kind is Kind.MEMORY
    assert machine.medium("/data2/cache").kind is Kind.FUSE
    assert machine.medium("/data/over").kind is Kind.MEMORY


@pytest.mark.parametrize("text", ["", "x", "1 2 3 - ext4", " - ", "1 2 0:1 / /x rw\n-"])
def test_what_is_no_mount_is_skipped(text: str) -> None:
    assert mounts_in(text) == []


def test_nothing_known_is_an_ordinary_disk(machine: Machine) -> None:
    assert machine.medium() == Medium(Kind.DISK, "nothing is known of its file system")


def test_this_machine_can_be_asked(tmp_path: Path) -> None:
    assert medium_of(tmp_path / "not" / "yet").why
    if Path("/dev/shm").is_mount():
        assert medium_of(Path("/dev/shm")).kind is Kind.MEMORY


def test_in_order_means_few_lanes_close_together() -> None:
    limits = Limits(give_up_s=7.0).sequential()
    assert (limits.lanes_most, limits.lanes_per_host, limits.window_bytes) == (4, 4, 64 * MIB)
    assert limits.give_up_s == 7.0
    assert Limits(lanes_at_start=1, lanes_most=2, lanes_per_host=1).sequential().lanes_most == 2


def test_the_reason_is_told_to_whom_wants_to_know() -> None:
    event = WritingInOrder("/data", "network file system", "/data is nfs4: its files lie on another machine")
    assert Notes(verbose=False).of(event, 0.0) is None
    assert "its files lie on another machine" in (Notes(verbose=True).of(event, 0.0) or "")
