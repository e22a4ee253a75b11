"""The sets `trocar fetch` knows: where each lives, whether it may be downloaded, and how it is to lie on disk.

Addresses were looked up in November 2026. The trees are those of docs/data.md, repeated because the package ships
without its docs; a test holds the two together.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from trocar.config import nearest
from trocar.errors import UserError


@dataclasses.dataclass(frozen=True)
class KnownSet:
    """A research set. `url` is None where a person has to ask for it, and `why_not` then says why."""

    name: str  # as in `data.kind`
    title: str
    page: str
    layout: str
    url: str | None = None
    why_not: str = ""
    about_mb: int = 0  # as its home states it
    terms: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {**dataclasses.asdict(self), "downloads": self.url is not None}


def known(name: str) -> KnownSet:
    """The set of that name or title, in any case, with blanks, _ or - between words. Others are refused."""
    wanted = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    for one in KNOWN:
        if wanted in (one.name, one.title.lower().replace(" ", "-")):
            return one
    names = [one.name for one in KNOWN]
    near = nearest(wanted, names)
    mend = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
    raise UserError(f"no set {name} is known", mend=mend)


def by_hand(one: KnownSet) -> UserError:
    """What to do about a set that trocar does not download: its page, and how it is to be unpacked."""
    tree = "\n".join(f"    {line}" for line in one.layout.splitlines())
    return UserError(
        f"{one.title} is not downloaded by trocar: {one.why_not}",
        where=one.page,
        mend=f"get it there, unpack it so, then run `trocar check` on its folder\n{tree}",
    )


KNOWN = (
    KnownSet(
        name="kvasir-instrument",
        title="Kvasir-Instrument",
        page="https://datasets.simula.no/kvasir-instrument/",
        url="https://datasets.simula.no/downloads/kvasir-instrument.zip",
        about_mb=170,
        terms="research and education only, and cite Jha et al. 2021, doi:10.1007/978-3-030-67835-7_19",
        layout="""\
kvasir-instrument/
├── images/*.jpg
├── masks/*.png                       0/255 in three equal channels
├── train.txt
├── test.txt
└── bboxes.json                       derived from the masks, not read""",
    ),
    KnownSet(
        name="endovis15",
        title="EndoVis 2015",
        page="https://endovissub-instrument.grand-challenge.org/",
        why_not="its challenge asks for a registration",
        layout="""\
endovis15/
├── rigid/
│   └── OP1/
│       ├── Raw/img_01_raw.png
│       └── Masks/img_01_class.png, img_01_instrument.png
└── robotic/
    └── Dataset1/
        ├── Video.avi
        └── Segmentation.avi          or Left_Instrument_Segmentation.avi and Right_...""",
    ),
    KnownSet(
        name="endovis17",
        title="EndoVis 2017",
        page="https://endovissub2017-roboticinstrumentsegmentation.grand-challenge.org/",
        why_not="its challenge asks for a registration",
        layout="""\
endovis17/
├── train/                            names of these two are free; test is told by its labels, or by "test" in its name
│   ├── instrument_dataset_1/
│   │   ├── left_frames/frame000.png      1920x1080
│   │   ├── right_frames/                 not labelled, not read
│   │   └── ground_truth/
│   │       ├── Left_Prograsp_Forceps_labels/frame000.png      10 shaft, 20 wrist, 30 claspers
│   │       ├── Maryland_Bipolar_Forceps_labels/frame000.png
│   │       └── Other_labels/frame000.png
│   └── ... instrument_dataset_8/
└── test/
    ├── instrument_dataset_1/
    │   ├── left_frames/frame225.png
    │   ├── BinarySegmentation/frame225.png      these three also below ground_truth/ or gt/,
    │   ├── PartsSegmentation/frame225.png       or in a tree of their own
    │   └── TypeSegmentation/frame225.png
    └── ... instrument_dataset_10/""",
    ),
    KnownSet(
        name="endovis18",
        title="EndoVis 2018",
        page="https://endovissub2018-roboticscenesegmentation.grand-challenge.org/",
        why_not="its challenge asks for a registration",
        layout="""\
endovis18/
├── miccai_challenge_2018_release_1/
│   ├── labels.json
│   └── seq_1/
│       ├── left_frames/frame000.png
│       ├── right_frames/                 not labelled, not read
│       └── labels/frame000.png           colours
├── miccai_challenge_release_2/ ...
├── repairs/seq_1_frame042.png            optional: corrected masks, used instead of those of release 1
└── test_data/
    ├── labels.json
    └── seq_1/ ...""",
    ),
    KnownSet(
        name="robust-mis",
        title="ROBUST-MIS 2019",
        page="https://www.synapse.org/Synapse:syn18779624",
        why_not="Synapse asks for an account and for consent to the terms",
        layout="""\
robust-mis/
├── Training/
│   └── Rectal resection/
│       └── 1/                            procedure
│           └── 25/                       frame
│               ├── raw.png
│               ├── instrument_instances.png      missing: the frame shows no instrument
│               └── 10s_video.zip                 not read
└── Testing/
    ├── Stage_1/Rectal resection/1/9300/raw.png ...
    ├── Stage_2/ ...
    └── Stage_3/ ...""",
    ),
    KnownSet(
        name="cholecseg8k",
        title="CholecSeg8k",
        page="https://www.kaggle.com/datasets/newslab/cholecseg8k",
        why_not="Kaggle asks for an account",
        layout="""\
cholecseg8k/
└── video01/
    └── video01_00080/
        ├── frame_80_endo.png
        ├── frame_80_endo_watershed_mask.png      read
        ├── frame_80_endo_mask.png                not read: sparse
        └── frame_80_endo_color_mask.png          not read: blurred edges""",
    ),
    KnownSet(
        name="cholec-instances",
        title="CholecInstanceSeg",
        page="https://www.synapse.org/Synapse:syn60239970/wiki/628710",
        why_not="Synapse asks for an account; its images come from CholecSeg8k, CholecT50 and Cholec80",
        layout="""\
cholec-instances/
├── train/
│   └── VID12_seg8k/                  or _t50_full, _t50_sparse, _t80_sparse
│       ├── img_dir/seg8k_video12_015750.png
│       └── ann_dir/seg8k_video12_015750.json     LabelMe polygons
├── val/ ...
└── test/ ...""",
    ),
    KnownSet(
        name="sar-rarp50",
        title="SAR-RARP50",
        page="https://rdr.ucl.ac.uk/projects/SAR-RARP50_Segmentation_of_surgical_"
        "instrumentation_and_Action_Recognition_on_Robot-Assisted_Radical_Prostatectomy_Challenge/191091",
        why_not="its home gives every video as an item of its own, under its terms",
        layout="""\
sar-rarp50/
├── train1/
│   └── video_01/
│       ├── segmentation/000000060.png    one a second, by the video's frame number
│       ├── video_left.avi                read where rgb lacks the frame
│       └── rgb/000000060.png             as the organisers' tool extracts them
├── train2/ ...
└── test/ ...""",
    ),
    KnownSet(
        name="cadis",
        title="CaDIS",
        page="https://cataracts-semantic-segmentation2020.grand-challenge.org/",
        why_not="its challenge asks for a registration",
        layout="""\
cadis/
├── Video01/
│   ├── Images/Video1_frame000090.png
│   └── Labels/Video1_frame000090.png     0 to 35
└── ... Video25/""",
    ),
)
