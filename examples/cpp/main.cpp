// adaptiveisp-boxes DIR FRAME [WxH PATTERN BLACK WHITE]: prints the boxes of a headerless raw frame, one a line.
#include <cstdio>
#include <iostream>

#include "adaptiveisp.hpp"

int main(int count, char** words) {
  if (count != 3 && count != 7) {
    std::cerr << "usage: adaptiveisp-boxes DIR FRAME [WxH PATTERN BLACK WHITE]\n";
    return 2;
  }
  try {
    adaptiveisp::Facts facts;
    if (count == 7) {
      long width = 0, height = 0;
      if (std::sscanf(words[3], "%ldx%ld", &width, &height) != 2) throw std::runtime_error("give the size as WxH");
      facts.width = width, facts.height = height, facts.pattern = words[4];
      facts.black_level = {std::strtof(words[5], nullptr)}, facts.white_level = {std::strtof(words[6], nullptr)};
    }
    adaptiveisp::Session session(words[1], 1);
    for (const adaptiveisp::Box& box : session(adaptiveisp::read_file(words[2]), facts))
      std::printf("%s %.4f %.2f %.2f %.2f %.2f\n", box.name.c_str(), box.score, box.x0, box.y0, box.x1, box.y1);
  } catch (const std::exception& error) {  // Ort::Exception too
    std::cerr << "adaptiveisp-boxes: " << error.what() << "\n";
    return 1;
  }
}
