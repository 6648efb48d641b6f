# SPDX-License-Identifier: Apache-2.0
"""Light stemming of English and of the Latin that physicians write.

Only endings that do not change what is meant are taken off: plural, -ing, -ed, -ement, -ly.
"Lesions" is "lesion", "enhancing" and "enhancement" are one; "hepatic" stays apart from
"hepatitis". Words with digits and words of three letters (MRI, CNS) are left as they are.
"""

from __future__ import annotations

from functools import lru_cache

_IRREGULAR = {
    "atria": "atrium", "bacilli": "bacillus", "bronchi": "bronchus", "bullae": "bulla",
    "calculi": "calculus", "calices": "calyx", "calyces": "calyx", "cortices": "cortex",
    "diverticula": "diverticulum", "emboli": "embolus", "feet": "foot", "foci": "focus",
    "foramina": "foramen", "gyri": "gyrus", "hila": "hilum", "indices": "index",
    "labra": "labrum", "lumina": "lumen", "menisci": "meniscus", "nuclei": "nucleus",
    "phalanges": "phalanx", "septa": "septum", "sulci": "sulcus", "teeth": "tooth",
    "thalami": "thalamus", "thrombi": "thrombus", "uteri": "uterus", "vertices": "vertex",
}  # fmt: skip
_AS_THEY_ARE = """
    aids ards als pres pcos sars mers his always perhaps during evening morning nothing something
    anything thing wing sling indeed hundred
"""
_KEPT = frozenset(_AS_THEY_ARE.split())
# plurals in -es of words in -is
_GREEK = ("stases", "gnoses", "tenoses", "mboses", "broses", "croses", "leroses", "physes",
          "theses", "lyses", "tatoses", "phyloses", "arthroses", "kyphoses", "lordoses",
          "orioses", "axes", "synoses")  # fmt: skip
_VOWELS = frozenset("aeiouy")


@lru_cache(maxsize=1 << 15)
def stem(word: str) -> str:
    """Return the stem of a folded word (lower case, no accents)."""
    if len(word) <= 3 or not word.isalpha() or word in _KEPT:
        return word
    word = _IRREGULAR.get(word, word)
    word = _singular(word)
    word = _without_ending(word)
    return word[:-1] if len(word) >= 5 and word.endswith("e") else word


def _singular(word: str) -> str:
    if word.endswith(_GREEK) and len(word) > 5:
        return word[:-2] + "is"
    if word.endswith("omata"):
        return word[:-2]
    if word.endswith("ae") and len(word) > 4:
        return word[:-1]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes", "uses")) and len(word) > 5:
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "os")):
        return word[:-1]
    return word


def _without_ending(word: str) -> str:
    for ending, shortest in (("ement", 5), ("ing", 4), ("ed", 4), ("ly", 4)):
        left = word[: -len(ending)]
        if word.endswith(ending) and len(left) >= shortest and _VOWELS & set(left):
            if ending in ("ing", "ed") and left[-1] == left[-2] and left[-1] not in "lsz":
                left = left[:-1]
            return left
    return word
