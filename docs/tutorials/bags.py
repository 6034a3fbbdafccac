"""Learn from bags in a data frame.

In multiple instance learning a bag has a label, and its members have none. Here a bag holds images
of digits, and it is positive if one of them is a 9. The rows of a data frame are the members; one
column says to which bag a row belongs.

The network gives every member a score. The bag's score is a smooth maximum over its members, so
training on bags also tells which member made a bag positive.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn import datasets

import keras_sets

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# ## A data frame
#
# 400 bags of about ten members, 64 features each.

pixels, digits = datasets.load_digits(return_X_y=True)
sizes = np.maximum(1, rng.normal(10, 2, size=400).astype(int))
members = rng.integers(len(digits), size=sizes.sum())
features = [f"pixel_{index}" for index in range(64)]
frame = pd.DataFrame(pixels[members] / 16, columns=features)
frame["bag"] = np.repeat(np.arange(400), sizes)
frame["nine"] = digits[members] == 9
# About one digit in ten is a 9; half of the bags get along without.
without = rng.permutation(400)[:200]
frame = frame[~(frame["nine"] & frame["bag"].isin(without))]
frame["positive"] = frame.groupby("bag")["nine"].transform("max").astype("float32")

# ## From the frame to sets

sets, positive, _, bags = keras_sets.utils.sets_from_dataframe(
    frame, group="bag", features=features, target="positive"
)
train = keras_sets.utils.SetDataset(sets[:300], positive[:300], batch_size=25, seed=0)
test = keras_sets.utils.SetDataset(sets[300:], positive[300:], shuffle=False, buckets=1)

# ## Scores of members, and of bags

entities = keras.Input((None, 64), name="entities")
mask = keras.Input((None,), dtype="bool", name="mask")
x = keras.layers.Dense(64, activation="relu")(entities)
x = keras.layers.Dropout(0.3)(x)
scores = keras.layers.Dense(1, name="scores")(x)
outputs = keras_sets.layers.LogSumExpPooling(name="bag")(scores, mask=mask)
inputs = {"entities": entities, "mask": mask}
model = keras.Model(inputs, outputs)
model.compile(
    keras.optimizers.Adam(0.003),
    keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.AUC(from_logits=True, name="auc")],
)
model.fit(train, epochs=20, shuffle=False, verbose=0)
auc = model.evaluate(test, verbose=0, return_dict=True)["auc"]
print(auc)

# ## Which member is the 9?
#
# The scores of the members come from the same network. No member had a label in training.

score_of = keras.Model(inputs, scores).predict(test, verbose=0)[..., 0]
nines = frame.groupby("bag", sort=False)["nine"].apply(np.array).iloc[300:]
right = [
    nine[score[: len(nine)].argmax()]
    for nine, score in zip(nines, score_of, strict=True)
    if nine.any()
]
print(np.mean(right))  # share of positive bags whose highest member is a 9

shown = next(index for index, nine in enumerate(nines) if nine.any())
figure, axes = plt.subplots(1, len(sets[300 + shown]), figsize=(9, 1.4), layout="constrained")
for axis, image, score in zip(axes, sets[300 + shown], score_of[shown], strict=False):
    axis.imshow(image.reshape(8, 8), cmap="gray_r")
    axis.set(title=f"{score:.1f}", xticks=[], yticks=[])
figure.savefig("bags.png", dpi=110)

# ![Members of a positive bag, and their scores](../images/tutorials/bags.png)
#
# *A positive bag of the test. The score stands above each member.*
