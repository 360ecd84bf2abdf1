import{wc as o}from"./chunk-VO3LFWRK.js";o();
