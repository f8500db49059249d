"""The fast COCO evaluator: ground truth, matching, average precision, bootstrap; and pycocotools, called quietly."""
