"""One folder per video, each with its images and its masks: `<video>/images/0001.jpg` and `<video>/masks/0001.png`.

Folders of other names are given by `data.images` and `data.masks`; so `data.masks=binary_masks` reads the cut EndoVis
2017 of github.com/ternaus/robot-surgery-segmentation. What mask values mean is recognised as for a plain folder, by a
`classes.json` beside the videos or else from the masks. The number in a frame's name is its place in the video. (Where
the videos are sub-folders of one `images` and one `masks`, that is a plain folder.)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from trocar.config import DataSettings
from trocar.data.files import read_image
from trocar.data.records import Record, Source
from trocar.data.sources import encoding, research
from trocar.data.sources.folder import INSTANCES, read_instances
from trocar.data.sources.listing import Listing, natural, pair
from trocar.errors import UserError


def recognises(root: Path) -> bool:
    """Whether folders directly below hold images and masks; other names need `data.images` and `data.masks`."""
    return research.holds(root, lambda folder: _is_video(folder, "images", "masks"), depth=1)


def read(root: Path, settings: DataSettings) -> Listing:
    """List the pairs of each video; a group is a video."""
    videos = [folder for folder in research.subfolders(root) if _is_video(folder, settings.images, settings.masks)]
    if not videos:
        raise UserError(
            f"no folder here holds {settings.images} and {settings.masks}",
            where=str(root),
            mend="put each video's images and masks in a folder of the video, or name yours: --set data.images=NAME "
            "--set data.masks=NAME",
        )
    pairs: dict[str, tuple[Path, Path]] = {}
    problems: dict[str, UserError] = {}
    instances: dict[str, list[Path]] = {}
    for video in videos:
        images, masks = (research.named_files(video / name, video.name) for name in (settings.images, settings.masks))
        own, wrong = pair(images, masks)
        pairs |= own
        problems |= wrong
        instances |= research.named_files(video / INSTANCES, video.name)
    found = encoding.recognise(root, [mask for _, mask in pairs.values()])
    others = [path.name for path in research.subfolders(root) if path not in videos]
    source = Source(
        dataset="videos",
        root=root,
        classes=found.classes,
        records=tuple(_record(name, files, instances.get(name, []), found) for name, files in _in_order(pairs)),
        mask_encoding=found.words,
        notes=(f"folders that are no video were passed over: {', '.join(others[:5])}",) if others else (),
    )
    return source, problems


def _is_video(folder: Path, images: str, masks: str) -> bool:
    return (folder / images).is_dir() and (folder / masks).is_dir()


def _in_order(pairs: dict[str, tuple[Path, Path]]) -> list[tuple[str, tuple[Path, Path]]]:
    return sorted(pairs.items(), key=lambda item: natural(item[0]))


def _record(name: str, files: tuple[Path, Path], instances: list[Path], found: encoding.Encoding) -> Record:
    image, mask = files
    group, stem = name.split("/", 1)
    return Record(
        name=name,
        group=group,
        dataset="videos",
        image=partial(read_image, image),
        mask=partial(found.read, mask),
        instances=partial(read_instances, instances[0]) if instances else None,
        frame=research.number_in(stem),
        files=(image, mask, *instances[:1]),
    )
