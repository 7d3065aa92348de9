"""Train on some classes, classify images of others that no image was seen of.

The embedded handwritten digits stand for your data: features of images, labels, and a descriptor
of every class. Seven digits are trained on; the other three are known by descriptor alone.

Usage: python examples/train_and_classify.py
Needs: pip install 'mcfa_fast[zsl]'
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import mcfa_fast as mf
from mcfa_fast.evaluation import Evaluation, evaluate


def main() -> dict[str, Evaluation]:
    digits = mf.data.load("digits")
    results = {}

    # Zero-shot: images of unseen classes only, told apart by their descriptors.
    split = digits.split("7/3:0", generalized=False)
    for system in ("dual-encoder", "eszsl"):
        classifier = mf.ZeroShotClassifier(system).fit(
            digits.rows(split.train),
            digits.labels[split.train],
            digits.semantics,
            class_names=digits.class_names,
        )
        results[system] = evaluate(classifier, digits, split)
        print(f"{results[system]}, chance {results[system].chance:.1%}")

    # Generalized zero-shot: images of all classes. A calibration chosen inside the seen classes
    # keeps these from taking every image.
    split = digits.split("7/3:0", generalized=True)
    classifier = mf.ZeroShotClassifier(task="gzsl").fit(
        digits.rows(split.train),
        digits.labels[split.train],
        digits.semantics,
        class_names=digits.class_names,
    )
    results["generalized"] = evaluate(classifier, digits, split)
    print(results["generalized"])

    # A class can be added after training, and the whole be kept in one file.
    classifier.add_classes(["another eight"], digits.semantics[8:9])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.pt"
        classifier.save(path)
        loaded = mf.ZeroShotClassifier.load(path)
    images = digits.features[split.test_unseen[:5]]
    print("predicted:", *(loaded.class_names_[label] for label in loaded.predict(images)))
    return results


if __name__ == "__main__":
    main()
