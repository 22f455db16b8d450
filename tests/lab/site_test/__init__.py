"""The practice site by itself: its images, its data and its shop, without a machine around them."""
