# SPDX-License-Identifier: Apache-2.0
"""Words as numbers: against scikit-learn, by hand, and what nobody knows."""

from __future__ import annotations

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from vesalius.networks.text import TextFeatures, terms_of

TEXTS = [
    "Axial T2 image shows a ring-enhancing mass in the left frontal lobe",
    "Ring-enhancing mass of the right frontal lobe",
    "Sagittal T1 image of the knee shows a meniscus tear",
    "Coronal image: meniscus tear of the knee",
    "Chest CT shows a pulmonary nodule in the left lobe",
    "Pulmonary nodule, chest CT without contrast",
]


def test_terms_are_words_and_their_neighbors() -> None:
    assert terms_of("No mass in the Left-lobe!") == ["no", "mass", "left-lobe", "no mass",
                                                     "mass left-lobe"]  # fmt: skip


def test_weights_are_those_of_scikit_learn() -> None:
    ours = TextFeatures.fit(TEXTS)
    theirs = TfidfVectorizer(analyzer=terms_of, min_df=2, sublinear_tf=True).fit(TEXTS)
    assert list(ours.terms) == list(theirs.get_feature_names_out())
    expected = theirs.transform(TEXTS).toarray()
    np.testing.assert_allclose(ours._weights(TEXTS).toarray(), expected, atol=1e-6)


def test_directions_keep_what_is_alike() -> None:
    features = TextFeatures.fit(TEXTS, 4)
    found = features.vectors([*TEXTS, "zebra"])
    assert found.shape == (7, 4)
    np.testing.assert_allclose(np.linalg.norm(found[:6], axis=1), 1, atol=1e-5)
    assert not found[6].any()
    likeness = found[:6] @ found[:6].T - 2 * np.eye(6)
    assert likeness.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]
    again = TextFeatures.fit([*TEXTS, *TEXTS, ""], 4)
    np.testing.assert_allclose(again.vectors(TEXTS), found[:6], atol=1e-4)


def test_few_texts_have_no_directions() -> None:
    features = TextFeatures.fit(["one text alone"])
    assert features.vectors(["one text alone", ""]).shape == (2, 0)
